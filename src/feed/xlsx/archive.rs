//! The packed file that a workbook is: its parts, each with its limits before anything is unpacked.
//!
//! The directory at its end is read by the zip crate, once it is known to be small; the parts are unpacked here, since
//! a row at a time is wanted of a sheet, and the limits must come before the bytes: so many for each packed byte, so
//! many in all, and so many without a new tag. What was unpacked is held against its length and checksum, so a part
//! that was cut off or changed is an error and no short part.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use crate::feed::FeedError;

/// The most parts of a workbook.
const PARTS_MAX: u64 = 4_096;
/// The most bytes of the directory of parts.
const DIRECTORY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most bytes of a part, unpacked.
const PART_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// So many unpacked bytes are never too many; beyond them, the most for each packed byte.
const FREE_BYTES: u64 = 8 * 1024 * 1024;
const RATIO_MAX: u64 = 100;
/// The most bytes from one tag to the next, which the reader of XML holds at once.
const TOKEN_BYTES_MAX: usize = 512 * 1024;

/// What is wrong with a part, as an error of reading carries it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0} beyond {1}")]
    TooLarge(&'static str, u64),
    #[error("{0}")]
    Damaged(&'static str),
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// What an error of reading a part means for the file.
pub(super) fn failed(error: &io::Error) -> FeedError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
        Some(Fault::TooLarge(what, limit)) => FeedError::TooLarge { what, limit: *limit },
        Some(Fault::Damaged(why)) => FeedError::Damaged((*why).to_owned()),
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        ) =>
        {
            FeedError::Damaged("a part does not unpack".to_owned())
        }
        None => FeedError::Io(io::Error::new(error.kind(), error.to_string())),
    }
}

/// Where a part lies.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u64,
    packed: u64,
    size: u64,
    crc: u32,
    method: CompressionMethod,
    encrypted: bool,
}

/// A workbook's file.
pub(super) struct Archive<R> {
    input: R,
    parts: HashMap<String, Part>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the directory.
    pub(super) fn open(mut input: R) -> Result<Self, FeedError> {
        check_directory(&mut input)?;
        let damaged = |e: zip::result::ZipError| match e {
            zip::result::ZipError::Io(e) => failed(&e),
            _ => FeedError::Damaged("its directory cannot be read".to_owned()),
        };
        let mut archive = ZipArchive::new(input).map_err(damaged)?;
        let mut parts = HashMap::new();
        for index in 0..archive.len() {
            let file = archive.by_index_raw(index).map_err(damaged)?;
            let name = file.name().map_err(damaged)?.replace('\\', "/").to_ascii_lowercase();
            let part = Part {
                start: file.data_start().ok_or_else(|| FeedError::Damaged("a part lies nowhere".to_owned()))?,
                packed: file.compressed_size(),
                size: file.size(),
                crc: file.crc32(),
                method: file.compression(),
                encrypted: file.encrypted(),
            };
            if parts.insert(name, part).is_some() {
                return Err(FeedError::Damaged("it has a part twice".to_owned()));
            }
        }
        Ok(Self { input: archive.into_inner(), parts })
    }

    /// Whether there is such a part; names are told apart without case, as Excel does.
    pub(super) fn has(&self, name: &str) -> bool {
        self.parts.contains_key(&name.to_ascii_lowercase())
    }

    /// A part, unpacked.
    pub(super) fn part(&mut self, name: &str) -> Result<Unpacked<&mut R>, FeedError> {
        let part = self.find(name)?;
        Unpacked::new(&mut self.input, part)
    }

    /// A part, unpacked; the others are given up.
    pub(super) fn into_part(self, name: &str) -> Result<Unpacked<R>, FeedError> {
        let part = self.find(name)?;
        Unpacked::new(self.input, part)
    }

    fn find(&self, name: &str) -> Result<Part, FeedError> {
        let part = self.parts.get(&name.to_ascii_lowercase()).copied();
        part.ok_or_else(|| FeedError::Damaged("a part that it names is missing".to_owned()))
    }
}

/// The directory's size and number of parts, from the one record at the file's end, before anybody trusts them.
fn check_directory(input: &mut (impl Read + Seek)) -> Result<(), FeedError> {
    const END: &[u8] = b"PK\x05\x06";
    const END_BYTES: u64 = 22;
    let length = input.seek(SeekFrom::End(0))?;
    let tail_bytes = length.min(END_BYTES + u64::from(u16::MAX));
    input.seek(SeekFrom::Start(length - tail_bytes))?;
    let mut tail = Vec::new();
    input.take(tail_bytes).read_to_end(&mut tail)?;
    let cut = || FeedError::Damaged("it has no directory at its end".to_owned());
    let mut ends = tail.windows(END.len()).enumerate().filter(|(_, window)| *window == END).map(|(at, _)| at);
    let (at, more) = (ends.next_back().ok_or_else(cut)?, ends.next().is_some());
    let number = |from: usize, bytes: usize| -> Option<u64> {
        let field = tail.get(at + from..at + from + bytes)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (parts, size) = (number(10, 2).ok_or_else(cut)?, number(12, 4).ok_or_else(cut)?);
    // Two such records could be read as two directories, by two readers.
    if more {
        return Err(FeedError::Damaged("it has two directories".to_owned()));
    }
    // 65,535 parts would be a directory of the long form, of which no workbook has need.
    if parts > PARTS_MAX {
        return Err(FeedError::TooLarge { what: "parts", limit: PARTS_MAX });
    }
    if size > DIRECTORY_BYTES_MAX {
        return Err(FeedError::TooLarge { what: "bytes of the directory of parts", limit: DIRECTORY_BYTES_MAX });
    }
    input.seek(SeekFrom::Start(0))?;
    Ok(())
}

enum Packing<R> {
    Stored(Take<BufReader<R>>),
    Deflated(DeflateDecoder<Take<BufReader<R>>>),
}

/// The bytes of a part, as they are unpacked.
pub(super) struct Unpacked<R> {
    packing: Packing<R>,
    part: Part,
    crc: Crc,
    bytes: u64,
    limit: u64,
}

impl<R: Read + Seek> Unpacked<R> {
    fn new(mut input: R, part: Part) -> Result<Self, FeedError> {
        if part.encrypted {
            return Err(FeedError::WrongKind { chinese: "加密的文件", english: "a workbook with a password" });
        }
        let limit = part.packed.saturating_mul(RATIO_MAX).saturating_add(FREE_BYTES).min(PART_BYTES_MAX);
        // What the directory says of the size may be a lie; it is refused early where it is the truth.
        if part.size > limit {
            return Err(FeedError::TooLarge { what: "unpacked bytes of a part", limit });
        }
        input.seek(SeekFrom::Start(part.start))?;
        let packed = BufReader::with_capacity(64 * 1024, input).take(part.packed);
        let packing = match part.method {
            CompressionMethod::Stored => Packing::Stored(packed),
            CompressionMethod::Deflated => Packing::Deflated(DeflateDecoder::new(packed)),
            _ => return Err(FeedError::Damaged("it is packed in a way that workbooks are not".to_owned())),
        };
        Ok(Self { packing, part, crc: Crc::new(), bytes: 0, limit })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.packing {
            Packing::Stored(bytes) => bytes.read(out)?,
            Packing::Deflated(bytes) => bytes.read(out)?,
        };
        self.crc.update(out.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        if self.bytes > self.limit {
            return Err(Fault::TooLarge("unpacked bytes of a part", self.limit).into());
        }
        if read == 0 && !out.is_empty() && (self.bytes != self.part.size || self.crc.sum() != self.part.crc) {
            return Err(Fault::Damaged("a part is not what its checksum says").into());
        }
        Ok(read)
    }
}

/// Bytes of XML of which only so many may lie between one tag and the next.
pub(super) struct Tagged<R> {
    input: BufReader<R>,
    run: usize,
}

impl<R: Read> Tagged<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(64 * 1024, input), run: 0 }
    }
}

impl<R: Read> Read for Tagged<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for Tagged<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.run > TOKEN_BYTES_MAX {
            return Err(Fault::TooLarge("bytes without a tag", TOKEN_BYTES_MAX as u64).into());
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        let passed = self.input.buffer().get(..amount).unwrap_or_default();
        self.run = match passed.iter().rposition(|byte| *byte == b'<') {
            Some(at) => amount - at,
            None => self.run + amount,
        };
        self.input.consume(amount);
    }
}
