//! Rule 2 for one object: the marks first, then that it is there.

use super::machine::{Machine, Next, Replies, Request};
use super::mutation::{Mutation, mutated};
use super::object::{Copy, DataId};

/// Sees that data or a copy may be relied on by whoever has written a reference to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct See {
    target: Target,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Data(DataId),
    Copy(Copy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Start,
    MarksRead,
    LookedAt,
}

impl See {
    pub(super) fn data(id: DataId) -> Self {
        Self { target: Target::Data(id), stage: Stage::Start }
    }

    pub(super) fn copy(copy: Copy) -> Self {
        Self { target: Target::Copy(copy), stage: Stage::Start }
    }

    fn there(&self) -> Next<bool> {
        Next::Ask(vec![match &self.target {
            Target::Data(id) => Request::HasData(id.clone()),
            Target::Copy(copy) => Request::HasCopy(copy.clone()),
        }])
    }

    fn is_free(&self, replies: &mut Replies) -> bool {
        replies.marks().is_some_and(|marks| match &self.target {
            Target::Data(id) => !marks.data.contains(id),
            Target::Copy(copy) => !marks.copies.contains(copy),
        })
    }
}

impl Machine for See {
    type Output = bool;

    fn step(&mut self, mut replies: Replies) -> Next<bool> {
        let marks = Next::Ask(vec![Request::Marks { recent: false }]);
        let reversed = mutated(Mutation::ThereBeforeMarks);
        match self.stage {
            Stage::Start if mutated(Mutation::NothingSeen) => Next::Done(true),
            Stage::Start if mutated(Mutation::LinkMarkedData) && matches!(self.target, Target::Data(_)) => {
                self.stage = Stage::LookedAt;
                self.there()
            }
            Stage::Start => {
                self.stage = Stage::MarksRead;
                if reversed { self.there() } else { marks }
            }
            Stage::MarksRead if reversed => {
                self.stage = Stage::LookedAt;
                if replies.there() { marks } else { Next::Done(false) }
            }
            Stage::MarksRead if !self.is_free(&mut replies) => Next::Done(false),
            Stage::MarksRead => {
                self.stage = Stage::LookedAt;
                self.there()
            }
            Stage::LookedAt if reversed => Next::Done(self.is_free(&mut replies)),
            Stage::LookedAt => Next::Done(replies.there()),
        }
    }
}
