//! The sealed file: a head in the clear, then chunks, each sealed for its place in this one file.
//!
//! `magic (16), format (4), id (16)`, then for each chunk `last (1), length (4), ciphertext, tag (16)`.
//! The key is made from the keyring's backup key and the whole head, so no chunk of another file opens
//! here; the nonce is the chunk's number and whether it is the last, so none opens in another place, and
//! a file that ends before its last chunk is known to be cut. No secret is in the head.

use std::io::Read;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::entropy::{self, Entropy, EntropyError};
use crate::keys::Keyring;

const MAGIC: &[u8; 16] = b"jadegate backup\n";
/// The form of backups that this build writes and reads.
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 36;
const TAG_BYTES: usize = 16;
/// A chunk that has reached this many bytes is sealed.
const CHUNK_BYTES: usize = 256 * 1024;
/// The longest chunk: one more item comes in before it is sealed.
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES + 128 * 1024;

/// Why a file is not taken for a backup. Nothing of it is quoted.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It begins with something else.
    #[error("it is no backup: it does not begin as one made by `jadegate store export` does")]
    NotOne,
    /// A newer jadegate made it.
    #[error(
        "it has format {0}, and this jadegate knows {FORMAT}; import it with the jadegate that made it, or a newer one"
    )]
    Newer(u32),
    /// Its first chunk does not open.
    #[error(
        "it does not open: it is of a deployment with other keys, or its beginning was changed. Put the key folder of its deployment in place, or take another copy"
    )]
    OtherKeys,
    /// A later chunk does not open.
    #[error(
        "it is damaged at byte {0}: what stands there was changed, exchanged or put there from another file. Take another copy"
    )]
    Changed(u64),
    /// It ends too early.
    #[error("it is cut short: it ends at byte {0}, before its last part. Take another copy")]
    CutShort(u64),
    /// It goes on behind its end.
    #[error("something was appended to it: its last part ends at byte {0}. Take another copy")]
    Appended(u64),
    /// It opens, and says what this build does not know.
    #[error("it opens, but {0}; import it with the jadegate that made it")]
    Content(String),
}

fn cipher(keys: &Keyring, head: &[u8]) -> Option<LessSafeKey> {
    let key = keys.backup().derive("backup file", &[head]);
    UnboundKey::new(&AES_256_GCM, key.bytes()).ok().map(LessSafeKey::new)
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let place = std::iter::once(u8::from(last)).chain([0; 3]).chain(number.to_be_bytes());
    bytes.iter_mut().zip(place).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(bytes)
}

/// Writes a backup, a chunk at a time.
pub(super) struct Sealer<'a, W> {
    out: &'a mut W,
    cipher: LessSafeKey,
    number: u64,
    held: Vec<u8>,
    /// How many bytes went out.
    pub bytes: u64,
}

/// Why a backup cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// What takes it failed.
    #[error("it could not be written: {0}")]
    Write(#[from] std::io::Error),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The cipher refused.
    #[error("the cipher refused to seal")]
    Cipher,
}

impl<'a, W: AsyncWrite + Unpin> Sealer<'a, W> {
    /// Begins a file with a random id.
    pub async fn begin(out: &'a mut W, keys: &Keyring, entropy: &dyn Entropy) -> Result<Self, SealError> {
        let id = entropy::bytes::<16>(entropy)?;
        let head = [MAGIC.as_slice(), &FORMAT.to_be_bytes(), &id].concat();
        let cipher = cipher(keys, &head).ok_or(SealError::Cipher)?;
        out.write_all(&head).await?;
        Ok(Self { out, cipher, number: 0, held: Vec::with_capacity(CHUNK_BYTES_MAX), bytes: head.len() as u64 })
    }

    /// Adds what one item is; no item is cut.
    pub async fn item(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), SealError> {
        encode(&mut self.held);
        if self.held.len() >= CHUNK_BYTES { self.seal(false).await } else { Ok(()) }
    }

    /// Ends the file.
    pub async fn end(mut self) -> Result<u64, SealError> {
        self.seal(true).await?;
        self.out.flush().await?;
        Ok(self.bytes)
    }

    async fn seal(&mut self, last: bool) -> Result<(), SealError> {
        let mut chunk = std::mem::take(&mut self.held);
        let sealed = self.cipher.seal_in_place_append_tag(nonce(self.number, last), Aad::empty(), &mut chunk);
        sealed.map_err(|_| SealError::Cipher)?;
        let length = u32::try_from(chunk.len()).map_err(|_| SealError::Cipher)?;
        self.out.write_all(&[u8::from(last)]).await?;
        self.out.write_all(&length.to_be_bytes()).await?;
        self.out.write_all(&chunk).await?;
        self.bytes += 5 + chunk.len() as u64;
        self.number += 1;
        chunk.clear();
        self.held = chunk;
        Ok(())
    }
}

/// Reads a backup, a chunk at a time.
pub(super) struct Opener<R> {
    input: R,
    cipher: LessSafeKey,
    /// What the file is called by: drawn when it was made.
    pub id: [u8; 16],
    number: u64,
    at: u64,
    ended: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the head.
    pub fn begin(mut input: R, keys: &Keyring) -> Result<Self, BackupError> {
        let mut head = [0; HEAD_BYTES];
        let read = fill(&mut input, &mut head)?;
        let known = MAGIC.len().min(read);
        if head.get(..known) != MAGIC.get(..known) || read == 0 {
            return Err(BackupError::NotOne);
        }
        if read < HEAD_BYTES {
            return Err(BackupError::CutShort(read as u64));
        }
        let (_, rest) = head.split_first_chunk::<16>().ok_or(BackupError::NotOne)?;
        let (format, id) = rest.split_first_chunk::<4>().ok_or(BackupError::NotOne)?;
        match u32::from_be_bytes(*format) {
            FORMAT => {}
            newer => return Err(BackupError::Newer(newer)),
        }
        let cipher = cipher(keys, &head).ok_or(BackupError::OtherKeys)?;
        let id = id.try_into().map_err(|_| BackupError::NotOne)?;
        Ok(Self { input, cipher, id, number: 0, at: HEAD_BYTES as u64, ended: false })
    }

    /// The next chunk, opened; none behind the last.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let mut front = [0; 5];
        let read = fill(&mut self.input, &mut front)?;
        if read < front.len() {
            return Err(BackupError::CutShort(self.at + read as u64));
        }
        let [last, length @ ..] = front;
        let length = u32::from_be_bytes(length) as usize;
        if last > 1 || !(TAG_BYTES..=CHUNK_BYTES_MAX + TAG_BYTES).contains(&length) {
            return Err(self.changed());
        }
        let mut chunk = vec![0; length];
        let read = fill(&mut self.input, &mut chunk)?;
        if read < length {
            return Err(BackupError::CutShort(self.at + (front.len() + read) as u64));
        }
        let opened = self.cipher.open_in_place(nonce(self.number, last == 1), Aad::empty(), &mut chunk);
        let Ok(opened) = opened.map(|opened| opened.len()) else { return Err(self.changed()) };
        chunk.truncate(opened);
        self.at += (front.len() + length) as u64;
        self.number += 1;
        if last == 1 {
            self.ended = true;
            if fill(&mut self.input, &mut [0])? > 0 {
                return Err(BackupError::Appended(self.at));
            }
        }
        Ok(Some(chunk))
    }

    /// How many bytes have been read.
    pub fn read(&self) -> u64 {
        self.at
    }

    fn changed(&self) -> BackupError {
        if self.number == 0 { BackupError::OtherKeys } else { BackupError::Changed(self.at) }
    }
}

/// Reads as much as fits, or as there is.
fn fill(input: &mut impl Read, to: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = to.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
