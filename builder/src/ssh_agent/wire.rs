//! Fields as SSH writes them (RFC 4251, section 5): numbers of four bytes, and strings behind their lengths.

/// Reads fields one after another; `None` where the bytes end too early.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    /// A number of any size that is not negative, without zeros in front.
    pub(super) fn integer(&mut self) -> Option<&'b [u8]> {
        Some(without_zeros(self.string()?))
    }
}

/// Writes a string.
pub(super) fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    // What is longer than four bytes can say is not made here.
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(bytes);
}

/// Writes a number of any size: shortest, with a zero in front where its first bit would look like a sign.
pub(super) fn integer(to: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = without_zeros(bytes);
    let mut signed = Vec::with_capacity(bytes.len() + 1);
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        signed.push(0);
    }
    signed.extend(bytes);
    string(to, &signed);
}

pub(super) fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
