//! The `/etc` that functions see: made once at start from constants and a few harmless files of
//! the host, never the host's own.
//!
//! Certificates, the linker's cache and the table of alternatives are copied, so that a change of
//! the host's shows after a restart. Links among them lead into `/usr`, which functions see too.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use lacewing_sandbox::NAMESERVER;

/// Files with a content of our own. The user is the one that functions see on AWS Lambda.
const FILES: &[(&str, &str)] = &[
    (
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         sbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nsbx_user1051:x:990:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n::1 localhost\n"),
    ("hostname", "sandbox\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
];

/// Files that are copied where the host has them.
const COPIED: &[&str] =
    &["ld.so.cache", "protocols", "services", "mime.types", "os-release", "ssl/openssl.cnf"];

/// Directories of files and links that are copied where the host has them, one level deep.
const COPIED_DIRECTORIES: &[&str] = &["ssl/certs", "alternatives", "pki/tls/certs"];

/// Where programs of other distributions look for the host's certificates.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const BUNDLE_LINKS: &[&str] = &["pki/tls/certs/ca-bundle.crt", "ssl/cert.pem", "ssl/ca-bundle.pem"];

/// Makes the directory `into`, which must not exist, from the host's `host` (its `/etc`).
pub(crate) fn make(host: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    for (name, text) in FILES {
        fs::write(into.join(name), text)?;
    }
    // The relay; without a way out there is none, and no route that leads to it.
    let resolver = format!("nameserver {NAMESERVER}\noptions timeout:2 attempts:2\n");
    fs::write(into.join("resolv.conf"), resolver)?;
    for name in COPIED {
        copy_entry(&host.join(name), &into.join(name))?;
    }
    for name in COPIED_DIRECTORIES {
        copy_directory(&host.join(name), &into.join(name))?;
    }
    symlink("/usr/share/zoneinfo/UTC", into.join("localtime"))?;
    symlink("/proc/self/mounts", into.join("mtab"))?;
    for link in BUNDLE_LINKS {
        let link = into.join(link);
        if fs::symlink_metadata(&link).is_err() {
            make_parent(&link)?;
            symlink(BUNDLE, link)?;
        }
    }
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        copy_entry(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Copies a file or a link; what is absent, or neither, is passed over.
fn copy_entry(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    make_parent(to)?;
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if metadata.is_file() {
        fs::copy(from, to)?;
    }
    Ok(())
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_function_user_and_no_file_of_the_host_that_names_people() {
        let root = tempfile::tempdir().expect("a directory");
        let (host, into) = (root.path().join("host"), root.path().join("etc"));
        fs::create_dir_all(host.join("ssl/certs")).expect("a directory");
        fs::write(host.join("passwd"), "anna:x:1000:1000::/home/anna:/bin/sh\n").expect("a file");
        fs::write(host.join("shadow"), "anna:secret").expect("a file");
        fs::write(host.join("services"), "http 80/tcp\n").expect("a file");
        symlink("/usr/share/ca/a.crt", host.join("ssl/certs/a.pem")).expect("a link");
        make(&host, &into).expect("made");
        let passwd = fs::read_to_string(into.join("passwd")).expect("a file");
        assert!(passwd.contains("sbx_user1051:x:993:990:") && !passwd.contains("anna"));
        assert!(!into.join("shadow").exists());
        assert_eq!(fs::read_to_string(into.join("services")).expect("a file"), "http 80/tcp\n");
        let link = fs::read_link(into.join("ssl/certs/a.pem")).expect("a link");
        assert_eq!(link, Path::new("/usr/share/ca/a.crt"));
        let bundle = fs::read_link(into.join("pki/tls/certs/ca-bundle.crt")).expect("a link");
        assert_eq!(bundle, Path::new(BUNDLE));
    }
}
