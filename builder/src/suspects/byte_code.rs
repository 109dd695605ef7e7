//! Python's byte code: by what it is told to be that of a source (PEP 552).
//!
//! Byte code that is compiled on import names its source's time and size, so that it differs with the time at which the
//! source was installed, and is out of date where an image shows the source with another time. The other form names a hash
//! of the source. CPython compares it whenever it reads the file (a *checked* hash), so what is wrong is never run.

/// Bytes of a file of byte code before its code.
pub const HEADER_BYTES: usize = 16;

/// The magic number from which on flags say what the header names (3.7).
const FIRST_WITH_FLAGS: u16 = 3392;

/// The magic number from which on sources are hashed with fewer rounds (3.11).
const FIRST_WITH_FEWER_ROUNDS: u16 = 3450;

/// The header names a hash of the source, which is to be compared.
const CHECKED_HASH: u32 = 0b11;

/// The path of the source whose byte code is at `path`: of `a/__pycache__/b.cpython-311.opt-1.pyc` it is `a/b.py`.
///
/// None for byte code elsewhere, which has no source, or is not looked at where there is one.
#[must_use]
pub fn source_of(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let above = folder.strip_suffix("__pycache__")?;
    if !(above.is_empty() || above.ends_with('/')) {
        return None;
    }
    let (mut name, mut tag) = name.strip_suffix(".pyc")?.rsplit_once('.')?;
    if tag.starts_with("opt-") {
        (name, tag) = name.rsplit_once('.')?;
    }
    (!name.is_empty() && !tag.is_empty()).then(|| format!("{above}{name}.py"))
}

/// The header that names the hash of `source`, for one that names its time and size.
///
/// None where it names something else, where that is another time or size than the source's, as such byte code is never run,
/// and where it is that of a Python before 3.7, which knows no hashes.
#[must_use]
pub fn with_hash(header: &[u8; HEADER_BYTES], source_seconds: i64, source: &[u8]) -> Option<[u8; HEADER_BYTES]> {
    let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _] = *header;
    let number = u16::from_le_bytes([magic[0], magic[1]]);
    let field = |from: usize| u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]]);
    // Of time and size, the header has the lowest 32 bits.
    let time = u32::try_from(source_seconds.rem_euclid(1 << 32)).ok()?;
    let size_bytes = u32::try_from(source.len() as u64 % (1 << 32)).ok()?;
    if magic[2..] != *b"\r\n" || number < FIRST_WITH_FLAGS || [field(4), field(8), field(12)] != [0, time, size_bytes] {
        return None;
    }
    let rounds = if number < FIRST_WITH_FEWER_ROUNDS { (2, 4) } else { (1, 3) };
    let hash = sip(rounds, [u32::from_le_bytes(magic).into(), 0], source);
    let mut hashed = *header;
    hashed[4..8].copy_from_slice(&CHECKED_HASH.to_le_bytes());
    hashed[8..].copy_from_slice(&hash.to_le_bytes());
    Some(hashed)
}

/// SipHash with so many rounds for each block and at the end. The standard library has it with one choice of both alone.
fn sip((of_block, of_end): (u32, u32), key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut blocks = bytes.chunks_exact(8);
    let mut add = |block: u64| {
        v[3] ^= block;
        (0..of_block).for_each(|_| round(&mut v));
        v[0] ^= block;
    };
    for block in &mut blocks {
        let mut word = [0; 8];
        word.copy_from_slice(block);
        add(u64::from_le_bytes(word));
    }
    let mut last = [0; 8];
    let rest = blocks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len().to_le_bytes()[0];
    add(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    (0..of_end).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(magic: u16, flags: u32, time: u32, size_bytes: u32) -> [u8; HEADER_BYTES] {
        let fields =
            [&magic.to_le_bytes()[..], b"\r\n", &flags.to_le_bytes(), &time.to_le_bytes(), &size_bytes.to_le_bytes()];
        fields.concat().try_into().unwrap()
    }

    /// Hashes as `importlib.util.source_hash` of CPython 3.7.16 to 3.13.0 gives them.
    #[test]
    fn hashes_are_those_of_python() {
        const LONGER: &[u8] = b"x = 12345678901234567890\n";
        for (magic, of_print, of_nothing, of_longer) in [
            (3394, "6d8a2a3c3b0a84c0", "85ee0caabd83b6a7", "4b4a4414fcf8d5dd"),
            (3413, "9bf71decb71ddb20", "81e4881b3643e8e9", "ce359a1727731f6d"),
            (3439, "28765e52ed782214", "8cc0cd2525e7fd27", "162a892c98121b7f"),
            (3495, "da812d7f407a3059", "738d9cd5d5e87f73", "580e59d89efb9f43"),
            (3531, "bf71f361a5f8cd69", "baf18eedc9387a25", "696d9640f5c93837"),
            (3571, "5a90791f83be4635", "27ec6d312f93b814", "59186da39a14a4ed"),
        ] {
            for (source, hash) in [(&b"print(1)\n"[..], of_print), (b"", of_nothing), (LONGER, of_longer)] {
                let size_bytes = source.len().try_into().unwrap();
                let found = with_hash(&header(magic, 0, 77, size_bytes), 77, source).unwrap();
                assert_eq!(found[..8], header(magic, 0b11, 0, 0)[..8]);
                assert_eq!(hex::encode(&found[8..]), hash, "{magic}");
                assert_eq!(with_hash(&found, 77, source), None, "it names a hash");
            }
        }
    }

    #[test]
    fn what_is_not_that_of_the_source_stays() {
        assert!(with_hash(&header(3495, 0, 77, 3), 77, b"abc").is_some());
        assert!(with_hash(&header(3495, 0, 77, 3), 77 + (1 << 32), b"abc").is_some());
        assert_eq!(with_hash(&header(3495, 0, 77, 3), 78, b"abc"), None, "another time");
        assert_eq!(with_hash(&header(3495, 0, 77, 3), 77, b"ab"), None, "another size");
        assert_eq!(with_hash(&header(3379, 0, 77, 3), 77, b"abc"), None, "Python 3.6");
        assert_eq!(with_hash(&[0; HEADER_BYTES], 0, b""), None);
    }

    #[test]
    fn a_source_is_beside_the_folder_of_its_byte_code() {
        for (path, source) in [
            ("a/__pycache__/b.cpython-311.pyc", Some("a/b.py")),
            ("a/__pycache__/b.cpython-311.opt-2.pyc", Some("a/b.py")),
            ("__pycache__/b.c.cpython-37.pyc", Some("b.c.py")),
            ("a/b.pyc", None),
            ("a/x__pycache__/b.cpython-311.pyc", None),
            ("a/__pycache__/b.pyc", None),
            ("a/__pycache__/.cpython-311.pyc", None),
            ("a/__pycache__/b.cpython-311.py", None),
        ] {
            assert_eq!(source_of(path).as_deref(), source, "{path}");
        }
    }
}
