//! Going on with an upload that several requests may want to go on with: claim the next state, then look.

use super::machine::{Machine, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{Nonce, Object};
use crate::spec::UploadId;

/// Claims the state number `seq` of an upload. Output: whether it is this claim's to write. Of two that claim at once at
/// least one sees the other; a claim whose holder died ends the upload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimUpload {
    upload: UploadId,
    seq: u32,
    nonce: Nonce,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Start,
    Claimed,
    Listed,
}

impl ClaimUpload {
    /// Claims `seq` under this nonce, which the state gets as well.
    pub fn new(upload: UploadId, seq: u32, nonce: Nonce) -> Self {
        Self { upload, seq, nonce, stage: Stage::Start }
    }

    fn claim(&self) -> Request {
        Request::Write(Object::UploadClaim(self.upload.clone(), self.seq, self.nonce.clone()))
    }

    fn list(&self) -> Request {
        Request::UploadClaims(self.upload.clone())
    }
}

impl Machine for ClaimUpload {
    type Output = bool;

    fn step(&mut self, mut replies: Replies) -> Next<bool> {
        let reversed = mutated(Mutation::ListBeforeClaim);
        let free = |replies: &mut Replies| {
            let others = replies.upload_claims();
            others.is_some_and(|others| !others.iter().any(|(seq, nonce)| *seq >= self.seq && *nonce != self.nonce))
        };
        match self.stage {
            Stage::Start => {
                self.stage = Stage::Claimed;
                Next::Ask(vec![if reversed { self.list() } else { self.claim() }])
            }
            Stage::Claimed if reversed && !free(&mut replies) => Next::Done(false),
            Stage::Claimed => {
                self.stage = Stage::Listed;
                Next::Ask(vec![if reversed { self.claim() } else { self.list() }])
            }
            Stage::Listed => Next::Done(reversed || free(&mut replies)),
        }
    }
}
