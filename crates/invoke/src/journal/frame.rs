//! Frames of the journal: `u32 length | u32 CRC-32 | JSON`, and reading a segment of them.
//!
//! A segment is read up to the first frame that is cut off or does not match its checksum: what
//! lies behind such a frame cannot be told from garbage, and is counted, never guessed at.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use lacewing_model::usage::UsageRecord;
use lacewing_services::Written;

const HEADER: usize = 8;
/// No record is longer; a longer length is garbage.
const LONGEST: usize = 64 * 1024;

/// Reads the records of a closed segment.
#[derive(Debug)]
pub struct Segment {
    reader: BufReader<File>,
    length: u64,
    position: u64,
    torn: Option<Torn>,
}

/// The end of a segment that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// The frame of a record.
pub(super) fn encode(record: &UsageRecord) -> Result<Vec<u8>, serde_json::Error> {
    let mut frame = Vec::with_capacity(512);
    frame.extend_from_slice(&[0; HEADER]);
    serde_json::to_writer(&mut frame, record)?;
    let body = &frame[HEADER..];
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = crc32fast::hash(body).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..HEADER].copy_from_slice(&checksum);
    Ok(frame)
}

// === Segment ===

impl Segment {
    /// Opens a segment.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { reader: BufReader::new(file), length, position: 0, torn: None })
    }

    /// The next records, at most `most`; none at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self, most: usize) -> io::Result<Vec<Written>> {
        let mut records = Vec::new();
        while records.len() < most && self.torn.is_none() && self.position < self.length {
            match self.read_frame()? {
                Some(record) => records.push(record),
                None => {
                    let bytes = self.length - self.position;
                    self.torn = Some(Torn { offset: self.position, bytes });
                }
            }
        }
        Ok(records)
    }

    /// The end that could not be read, if there is one and it was reached.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    fn read_frame(&mut self) -> io::Result<Option<Written>> {
        let mut header = [0; HEADER];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        let [a, b, c, d, checksum @ ..] = header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length == 0 || length > LONGEST {
            return Ok(None);
        }
        let mut body = vec![0; length];
        if !self.fill(&mut body)? || crc32fast::hash(&body) != u32::from_le_bytes(checksum) {
            return Ok(None);
        }
        let Ok(record) = serde_json::from_slice(&body) else { return Ok(None) };
        self.position += u64::try_from(HEADER + length).unwrap_or(u64::MAX);
        Ok(Some(Written { record, json: body.into() }))
    }

    /// Fills the buffer; false if the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.reader.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}
