//! Cuts off what a program needs only for debugging, so that it fits into an upload.
//!
//! Only the parts that program headers name are ever loaded; sections, symbols and debug information
//! follow them in the file. See elf(5), <https://man7.org/linux/man-pages/man5/elf.5.html>.

/// Keeps the loaded parts of a 64-bit little-endian ELF program and nothing after them. Anything
/// else is left as it is.
pub(super) fn strip(program: &mut Vec<u8>) {
    let Some(end) = loaded_end(program) else { return };
    program.truncate(end);
    // e_shoff, e_shnum and e_shstrndx: there is no section table any more.
    program[40..48].fill(0);
    program[60..64].fill(0);
}

/// Where the last part that a program header names ends.
fn loaded_end(program: &[u8]) -> Option<usize> {
    if !program.starts_with(b"\x7fELF\x02\x01") || program.len() < 64 {
        return None;
    }
    let table = usize::try_from(u64_at(program, 32)?).ok()?;
    let (size, count) = (u16_at(program, 54)?, u16_at(program, 56)?);
    let mut end = table.checked_add(size.checked_mul(count)?)?;
    for index in 0..count {
        let header = table + index * size;
        let offset = usize::try_from(u64_at(program, header + 8)?).ok()?;
        let length = usize::try_from(u64_at(program, header + 32)?).ok()?;
        end = end.max(offset.checked_add(length)?);
    }
    (64..=program.len()).contains(&end).then_some(end)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes(field.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stripped_program_is_smaller_and_still_runs() {
        let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let before = program.len();
        strip(&mut program);
        assert!(program.len() < before);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stripped");
        std::fs::write(&path, &program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let listed = Command::new(&path).arg("--list").output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains("still_runs"));
    }

    #[test]
    fn anything_else_is_left_alone() {
        for content in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF\x02\x01", &[0x7f; 200]] {
            let mut bytes = content.to_vec();
            strip(&mut bytes);
            assert_eq!(bytes, content);
        }
        let mut hostile = b"\x7fELF\x02\x01".to_vec();
        hostile.resize(64, 0xff);
        let before = hostile.clone();
        strip(&mut hostile);
        assert_eq!(hostile, before);
    }
}
