//! How a long blob is cut into the parts of a multipart upload.
//!
//! On an object store parts lie at fixed places, the same for every blob and every replica: nothing of a body is stored
//! as a part before the part is whole, so that no part but the last is ever too short, wherever requests begin and end.
//! Parts grow with the offset, so that as many as a store takes hold a blob of 183 GiB, and the first 5 GiB are cut into
//! parts of one size, which some stores ask for. On a folder a part of any size costs next to nothing.

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// How many parts S3, and what speaks like it, takes.
const PARTS_MAX: u64 = 10_000;
/// Up to which byte of a blob its parts have which size.
const SIZES: [(u64, u64); 3] = [(5 * GIB, 5 * MIB), (21 * GIB, 8 * MIB), (u64::MAX, 24 * MIB)];
/// The largest blob that is one object on a store where parts cost nothing.
const ONE_PART_BYTES: u64 = 4 * MIB;

/// How a store wants its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartPlan {
    /// Of any size, whenever it suits.
    Any,
    /// At fixed places.
    Fixed {
        /// The least size of a part that is not the last.
        least_bytes: u64,
    },
}

impl PartPlan {
    /// The size of the part that begins at this byte of a blob; for the first, also the size up to which a blob is one object.
    pub fn part_bytes(self, begin: u64) -> u64 {
        match self {
            Self::Any => ONE_PART_BYTES,
            Self::Fixed { least_bytes } => {
                let size = SIZES.iter().find(|(until, _)| begin < *until).map_or(ONE_PART_BYTES, |(_, size)| *size);
                size.max(least_bytes)
            }
        }
    }

    /// The size of the largest blob.
    pub fn largest_blob_bytes(self) -> u64 {
        let Self::Fixed { .. } = self else { return u64::MAX };
        let (mut end, mut left) = (0u64, PARTS_MAX);
        for (until, _) in SIZES {
            let size = self.part_bytes(end);
            let parts = until.saturating_sub(end).div_ceil(size).min(left);
            end = end.saturating_add(parts.saturating_mul(size));
            left -= parts;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: PartPlan = PartPlan::Fixed { least_bytes: 5 * MIB };

    #[test]
    fn the_stated_largest_blob_fits_the_parts_that_a_store_takes() {
        let (mut parts, mut end) = (0, 0);
        while end < S3.largest_blob_bytes() {
            end += S3.part_bytes(end);
            parts += 1;
        }
        assert_eq!((parts, end), (PARTS_MAX, S3.largest_blob_bytes()));
        // As the module's text, the README and `--help` say.
        assert_eq!(end / GIB, 183);
    }

    #[test]
    fn a_store_that_wants_larger_parts_gets_them() {
        let plan = PartPlan::Fixed { least_bytes: 10 * MIB };
        assert_eq!(plan.part_bytes(0), 10 * MIB);
        assert_eq!(plan.part_bytes(100 * GIB), 24 * MIB);
        assert!(plan.largest_blob_bytes() > S3.largest_blob_bytes());
        assert_eq!(PartPlan::Any.largest_blob_bytes(), u64::MAX);
    }
}
