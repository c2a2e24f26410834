//! A small picture, made rather than stored.

/// Pixels a side.
const SIDE: u16 = 64;

/// A PNG: 64 × 64 pixels in grey, the land (light) standing out into the sea (dark).
pub(super) fn png() -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend(u32::from(SIDE).to_be_bytes());
    header.extend(u32::from(SIDE).to_be_bytes());
    // 8 bits of grey; deflate, no filter, not interlaced.
    header.extend([8, 0, 0, 0, 0]);
    chunk(&mut out, b"IHDR", &header);
    chunk(&mut out, b"IDAT", &stored(&pixels()));
    chunk(&mut out, b"IEND", &[]);
    out
}

/// Lines of pixels, each after its filter byte.
fn pixels() -> Vec<u8> {
    let mut lines = Vec::new();
    for y in 0..SIDE {
        lines.push(0);
        lines.extend((0..SIDE).map(|x| {
            let (from_middle, depth) = (y.abs_diff(SIDE / 2) * 2, SIDE - x);
            let shade = (x + y) % 32;
            if from_middle < depth { 180 + shade as u8 } else { 40 + shade as u8 }
        }));
    }
    lines
}

/// A zlib stream (RFC 1950) of one stored block: short enough here that squeezing it is not worth the code.
fn stored(data: &[u8]) -> Vec<u8> {
    // The picture's 4,160 bytes are far from the block's limit of 65,535.
    let length = data.len() as u16;
    let mut out = vec![0x78, 0x01, 1];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend_from_slice(data);
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// Length, type, data and CRC-32 (PNG specification, §5.3).
fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    let start = out.len();
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    let crc = !out[start..].iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 })
    });
    out.extend(crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_png_with_right_check_sums() {
        let png = png();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
        // An empty IEND is the same in every PNG.
        assert!(png.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
        // Adler-32 of "Wikipedia" is 0x11E60398.
        assert!(stored(b"Wikipedia").ends_with(&[0x11, 0xE6, 0x03, 0x98]));
        assert_eq!(pixels().len(), usize::from(SIDE) * (usize::from(SIDE) + 1));
    }
}
