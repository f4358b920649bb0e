//! Writes archives that no honest tool writes, byte by byte after APPNOTE.TXT 4.3.

use std::io::{Cursor, Read, Write};

/// One entry, true or not.
pub(super) struct Entry<'a> {
    name: &'a str,
    data: Vec<u8>,
    crc: u32,
    size: u32,
    mode: u32,
    flags: u16,
    method: u16,
    reuses: Option<usize>,
}

impl<'a> Entry<'a> {
    pub(super) fn file(name: &'a str, data: &[u8]) -> Self {
        let size = u32::try_from(data.len()).expect("small");
        let (crc, mode) = (crc32(data), 0o100_644);
        Self { name, data: data.to_vec(), crc, size, mode, flags: 0, method: 0, reuses: None }
    }

    pub(super) fn directory(name: &'a str) -> Self {
        Self::file(name, b"").mode(0o040_755)
    }

    pub(super) fn link(name: &'a str, target: &str) -> Self {
        Self::file(name, target.as_bytes()).mode(0o120_777)
    }

    pub(super) fn deflated(name: &'a str, data: &[u8]) -> Self {
        let whole = Self::file(name, data);
        Self { data: raw_deflate(data), method: 8, ..whole }
    }

    pub(super) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(super) fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    pub(super) fn method(self, method: u16) -> Self {
        Self { method, ..self }
    }

    /// States another decompressed size than the true one.
    pub(super) fn claims(self, size: u32) -> Self {
        Self { size, ..self }
    }

    /// Points at the bytes of an earlier entry instead of its own.
    pub(super) fn reuses(self, entry: usize) -> Self {
        Self { reuses: Some(entry), ..self }
    }
}

/// An archive with these entries.
pub(super) fn forge(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offsets = Vec::new();
    for entry in entries {
        if let Some(earlier) = entry.reuses {
            offsets.push(offsets[earlier]);
            continue;
        }
        offsets.push(u32::try_from(bytes.len()).expect("small"));
        bytes.extend(b"PK\x03\x04\x14\x00");
        common(&mut bytes, entry);
        bytes.extend(entry.name.as_bytes());
        bytes.extend(&entry.data);
    }
    let start = u32::try_from(bytes.len()).expect("small");
    for (entry, offset) in entries.iter().zip(&offsets) {
        bytes.extend(b"PK\x01\x02\x14\x03\x14\x00");
        common(&mut bytes, entry);
        bytes.extend([0; 6]);
        bytes.extend((entry.mode << 16).to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(entry.name.as_bytes());
    }
    let length = u32::try_from(bytes.len()).expect("small") - start;
    let count = u16::try_from(entries.len()).expect("few").to_le_bytes();
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00");
    bytes.extend(count);
    bytes.extend(count);
    bytes.extend(length.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// The fields that both headers share, flags to length of the extra field.
fn common(bytes: &mut Vec<u8>, entry: &Entry<'_>) {
    bytes.extend(entry.flags.to_le_bytes());
    bytes.extend(entry.method.to_le_bytes());
    bytes.extend([0, 0, 0x21, 0]);
    bytes.extend(entry.crc.to_le_bytes());
    bytes.extend(u32::try_from(entry.data.len()).expect("small").to_le_bytes());
    bytes.extend(entry.size.to_le_bytes());
    bytes.extend(u16::try_from(entry.name.len()).expect("short").to_le_bytes());
    bytes.extend([0; 2]);
}

fn raw_deflate(data: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("x", zip::write::SimpleFileOptions::default()).expect("started");
    zip.write_all(data).expect("written");
    let mut zip = zip::ZipArchive::new(zip.finish().expect("finished")).expect("its own");
    let mut raw = Vec::new();
    zip.by_index_raw(0).expect("there").read_to_end(&mut raw).expect("readable");
    raw
}

/// CRC-32 as in ISO 3309, bit by bit.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
