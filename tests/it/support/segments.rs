//! sled's data file as bytes: where its messages lie, and how one is changed so that its checksum is right again, as a disk
//! does that gives back other bytes than were written, or somebody who may write to it. The format is that of sled 0.34:
//! segments of 512 KiB, a head of 20 bytes each, then messages of `checksum | kind | length | segment | page | body`.

use std::ops::Range;

const SEGMENT: usize = 512 * 1024;
const SEGMENT_HEAD: usize = 20;
const HEAD_MAX: usize = 32;
const KINDS: Range<u8> = 1..12;

/// One message: where it begins, where its body does, and where it ends.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    at: usize,
    body: usize,
    end: usize,
}

/// A number of sled's, and how many bytes it takes.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = u64::from(*bytes.first()?);
    let byte = |n: usize| bytes.get(n).map(|byte| u64::from(*byte));
    Some(match first {
        0..=240 => (first, 1),
        241..=248 => (240 + 256 * (first - 241) + byte(1)?, 2),
        249 => (2288 + 256 * byte(1)? + byte(2)?, 3),
        _ => {
            let size = usize::try_from(first).unwrap() - 247;
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(bytes.get(1..=size)?);
            (u64::from_le_bytes(wide), size + 1)
        }
    })
}

fn checksum(bytes: &[u8], message: Message) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[message.body..message.end]);
    crc.update(&bytes[message.at + 4..message.body]);
    (crc.sum() ^ u32::MAX).to_le_bytes()
}

/// The messages of a data file that sled would read.
pub fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    for segment in (0..bytes.len()).step_by(SEGMENT) {
        let (mut at, end) = (segment + SEGMENT_HEAD, bytes.len().min(segment + SEGMENT));
        while at + HEAD_MAX <= end && KINDS.contains(&bytes[at + 4]) {
            let Some((length, first)) = number(&bytes[at + 5..end]) else { break };
            let Some((_, second)) = number(&bytes[at + 5 + first..end]) else { break };
            let Some((_, third)) = number(&bytes[at + 5 + first + second..end]) else { break };
            let body = at + 5 + first + second + third;
            let Some(message) = usize::try_from(length)
                .ok()
                .and_then(|length| body.checked_add(length))
                .filter(|message_end| *message_end <= end)
                .map(|end| Message { at, body, end })
            else {
                break;
            };
            if bytes[at..at + 4] != checksum(bytes, message) {
                break;
            }
            found.push(message);
            at = message.end;
        }
    }
    found
}

/// Turns a bit at this place of a message's body over, and makes its checksum right; whether there is such a body.
pub fn bend(bytes: &mut [u8], messages: &[Message], at: usize, bit: usize) -> bool {
    let Some(message) = messages.iter().find(|message| (message.body..message.end).contains(&at)) else { return false };
    bytes[at] ^= 1 << bit;
    let right = checksum(bytes, *message);
    bytes[message.at..message.at + 4].copy_from_slice(&right);
    true
}

/// Where these bytes stand.
pub fn places_of(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let (first, last) = (wanted[0], bytes.len().saturating_sub(wanted.len()));
    (0..=last).filter(|at| bytes[*at] == first && bytes[*at..].starts_with(wanted)).collect()
}
