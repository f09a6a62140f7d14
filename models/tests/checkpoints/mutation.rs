//! Alterations of files, the same for the same seed.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `end` − 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// `file` with one to eight alterations: bytes set or turned, pieces cut, repeated, or taken from `other`.
pub fn mutate(file: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    const BYTES: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'R', b'(', b't', b'}', b'.', b'Q', b'c'];
    let mut altered = file.to_vec();
    for _ in 0..=random.below(8) {
        if altered.is_empty() {
            break;
        }
        let at = place(altered.len(), random);
        let length = 1 + random.below(16);
        let end = (at + length).min(altered.len());
        match random.below(8) {
            0 => altered[at] = random.next() as u8,
            1 => altered[at] ^= 1 << random.below(8),
            2 => altered[at] = BYTES[random.below(BYTES.len())],
            3 => altered[at..end].fill(0xff),
            4 => drop(altered.drain(at..end)),
            5 => {
                let piece = altered[at..end].to_vec();
                altered.splice(at..at, piece);
            }
            6 => {
                let from = place(other.len(), random);
                let piece = other[from..(from + length).min(other.len())].to_vec();
                altered.splice(at..end, piece);
            }
            _ if random.below(8) == 0 => altered.truncate(at),
            _ => altered[at] = altered[at].wrapping_add(1),
        }
    }
    altered
}

/// Mostly near one of the ends, where the structure is and not the numbers.
fn place(length: usize, random: &mut Random) -> usize {
    match random.below(4) {
        0 => random.below(length),
        1 => length - 1 - random.below(length.min(1024)),
        _ => random.below(length.min(3072)),
    }
}

/// Sets the checksums of a zip archive to what its entries now are, where that can be done.
pub fn repaired(file: &mut [u8]) {
    let number = |file: &[u8], at: usize| -> Option<usize> {
        Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    let short = |file: &[u8], at: usize| -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?)))
    };
    let entries: Vec<usize> =
        (0..file.len().saturating_sub(46)).filter(|at| file[*at..].starts_with(b"PK\x01\x02")).collect();
    for central in entries {
        let checksum = (|| {
            let (size, local) = (number(file, central + 20)?, number(file, central + 42)?);
            let start = local.checked_add(30 + short(file, local + 26)? + short(file, local + 28)?)?;
            Some((local, crc32(file.get(start..start.checked_add(size)?)?)))
        })();
        if let Some((local, checksum)) = checksum {
            file[central + 16..central + 20].copy_from_slice(&checksum.to_le_bytes());
            if let Some(field) = file.get_mut(local + 14..local + 18) {
                field.copy_from_slice(&checksum.to_le_bytes());
            }
        }
    }
}

/// As zip archives have it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
        }
        sum
    })
}
