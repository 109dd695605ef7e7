//! What has come of a body, and is not stored yet.

use bytes::{Bytes, BytesMut};

use super::memory::OWN_BYTES;

/// Frames smaller than this are joined: each kept by itself would hold on to far more than its own bytes.
const JOINED_BYTES: usize = 16 * 1024;

/// The least memory that is taken for copies of frames at once.
const LEAST_PIECE_BYTES: usize = 1024;

/// What has come, and is not stored yet.
#[derive(Debug, Default)]
pub(super) struct Rope {
    whole: Vec<Bytes>,
    joined: BytesMut,
    pub(super) size_bytes: usize,
    /// Whether frames are copied into pieces that have just their size: one of a connection's keeps that connection's whole
    /// buffer, which is too much where a part's worth of them is kept.
    pub(super) exact: bool,
}

impl Rope {
    pub(super) fn push(&mut self, mut frame: Bytes) {
        self.size_bytes += frame.len();
        while self.exact && !frame.is_empty() {
            if self.joined.capacity() == self.joined.len() {
                self.close();
                // A body of a few bytes is not to take more than they are.
                self.joined = BytesMut::with_capacity(self.size_bytes.clamp(LEAST_PIECE_BYTES, OWN_BYTES));
            }
            let room = self.joined.capacity() - self.joined.len();
            self.joined.extend_from_slice(&frame.split_to(room.min(frame.len())));
        }
        if frame.is_empty() {
            return;
        }
        if frame.len() < JOINED_BYTES {
            self.joined.extend_from_slice(&frame);
            if self.joined.len() < JOINED_BYTES {
                return;
            }
        }
        self.close();
        if frame.len() >= JOINED_BYTES {
            self.whole.push(frame);
        }
    }

    fn close(&mut self) {
        if !self.joined.is_empty() {
            self.whole.push(self.joined.split().freeze());
        }
    }

    /// Takes the first `bytes`, or all.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<Bytes> {
        self.close();
        let mut left = bytes.min(self.size_bytes);
        self.size_bytes -= left;
        let mut taken = 0;
        let mut cut = None;
        for piece in &mut self.whole {
            if left < piece.len() {
                cut = (left > 0).then(|| piece.split_to(left));
                break;
            }
            left -= piece.len();
            taken += 1;
        }
        self.whole.drain(..taken).chain(cut).collect()
    }

    pub(super) fn all(&mut self) -> Vec<Bytes> {
        self.take(self.size_bytes)
    }

    /// In front of what is there.
    pub(super) fn put_back(&mut self, pieces: Vec<Bytes>) {
        self.size_bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        self.whole.splice(..0, pieces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rope_keeps_every_byte_in_its_place(
            frames in prop::collection::vec(0usize..100_000, 0..8),
            takes in prop::collection::vec((0usize..60_000, any::<bool>()), 0..8),
            exact: bool,
        ) {
            let (mut rope, mut expected) = (Rope { exact, ..Default::default() }, Vec::new());
            for (n, size) in frames.iter().enumerate() {
                let frame: Vec<u8> = (0..*size).map(|i| (i * 7 + n) as u8).collect();
                expected.extend_from_slice(&frame);
                rope.push(frame.into());
            }
            let mut out = Vec::new();
            for (bytes, back) in takes {
                let pieces = rope.take(bytes);
                if back {
                    rope.put_back(pieces);
                } else {
                    out.extend(pieces.concat());
                }
                prop_assert_eq!(out.len() + rope.size_bytes, expected.len());
            }
            out.extend(rope.all().concat());
            prop_assert_eq!(out, expected);
        }
    }
}
