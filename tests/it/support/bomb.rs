//! Packed files of any unpacked size, made without packing all of it: a block is packed once and written many times.

use flate2::{Compress, Compression, Crc, FlushCompress};

/// A part of a packed file.
pub struct Part {
    name: String,
    packed: Vec<u8>,
    method: u16,
    /// What the file says of its unpacked size; it may be a lie.
    pub size: u32,
    crc: u32,
}

fn deflated(bytes: &[u8], end: FlushCompress) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes.len() / 2 + 1_024);
    let status = Compress::new(Compression::best(), false).compress_vec(bytes, &mut packed, end);
    status.unwrap();
    packed
}

impl Part {
    /// One that is not packed.
    pub fn stored(name: &str, content: &str) -> Self {
        let mut crc = Crc::new();
        crc.update(content.as_bytes());
        let size = u32::try_from(content.len()).unwrap();
        Self { name: name.to_owned(), packed: content.into(), method: 0, size, crc: crc.sum() }
    }

    /// A beginning, a block so many times, and an end.
    pub fn repeated(name: &str, head: &str, block: &[u8], times: usize, tail: &str) -> Self {
        // Whole blocks end at a byte and look at nothing before them, so they can be put one behind the other.
        let once = deflated(block, FlushCompress::Full);
        let mut packed = deflated(head.as_bytes(), FlushCompress::Full);
        for _ in 0..times {
            packed.extend(&once);
        }
        packed.extend(deflated(tail.as_bytes(), FlushCompress::Finish));
        let of = |bytes: &[u8]| {
            let mut crc = Crc::new();
            crc.update(bytes);
            crc
        };
        let (mut crc, blocks) = (of(head.as_bytes()), of(block));
        for _ in 0..times {
            crc.combine(&blocks);
        }
        crc.combine(&of(tail.as_bytes()));
        let size = u32::try_from(head.len() + block.len() * times + tail.len()).unwrap();
        Self { name: name.to_owned(), packed, method: 8, size, crc: crc.sum() }
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        // Version, flags, method, time and day.
        for number in [20, 0, self.method, 0, 33] {
            header.extend(number.to_le_bytes());
        }
        for number in [self.crc, u32::try_from(self.packed.len()).unwrap(), self.size] {
            header.extend(number.to_le_bytes());
        }
        for length in [self.name.len(), 0] {
            header.extend(u16::try_from(length).unwrap().to_le_bytes());
        }
        header
    }
}

/// A workbook of one sheet, which is this part.
pub fn workbook(sheet: Part) -> Vec<u8> {
    let relation = format!("<R><Relationship Id=\"s\" Type=\"x/worksheet\" Target=\"/{}\"/></R>", sheet.name);
    file(&[
        Part::stored("[Content_Types].xml", "<Types/>"),
        Part::stored("xl/workbook.xml", "<workbook><sheets><sheet name=\"a\" r:id=\"s\"/></sheets></workbook>"),
        Part::stored("xl/_rels/workbook.xml.rels", &relation),
        sheet,
    ])
}

fn file(parts: &[Part]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for part in parts {
        let (at, header) = (u32::try_from(file.len()).unwrap(), part.header());
        file.extend([b"PK\x03\x04", &header[..], part.name.as_bytes(), &part.packed].concat());
        directory
            .extend([b"PK\x01\x02\x14\x00", &header[..], &[0; 10], &at.to_le_bytes(), part.name.as_bytes()].concat());
    }
    let (at, bytes) = (u32::try_from(file.len()).unwrap(), u32::try_from(directory.len()).unwrap());
    let count = u16::try_from(parts.len()).unwrap().to_le_bytes();
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &bytes.to_le_bytes(), &at.to_le_bytes(), &[0; 2]].concat());
    file
}
