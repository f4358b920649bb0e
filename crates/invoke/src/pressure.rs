//! How much of the time work on this machine waits for a processor, as the kernel measures it.
//!
//! See "PSI - Pressure Stall Information", <https://docs.kernel.org/accounting/psi.html>. A kernel
//! that does not measure it says nothing, and then nothing is held back.

use std::fs::File;
use std::io;

const FILE: &str = "/proc/pressure/cpu";
/// More than the file holds.
const LENGTH: usize = 256;

/// The kernel's gauge.
#[derive(Debug)]
pub(crate) struct Gauge(Option<File>);

impl Gauge {
    /// Opens the gauge, if there is one.
    pub(crate) fn open() -> Self {
        Self(File::open(FILE).ok())
    }

    /// The share of the last ten seconds in which something waited, in percent.
    pub(crate) fn read(&self) -> Option<u8> {
        let mut text = [0; LENGTH];
        let length = read_at_start(self.0.as_ref()?, &mut text).ok()?;
        parse(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

fn read_at_start(file: &File, into: &mut [u8]) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;

    file.read_at(into, 0)
}

fn parse(text: &str) -> Option<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = line.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
    let (whole, _) = average.split_once('.')?;
    whole.parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_last_ten_seconds_is_read() {
        let file = "some avg10=12.98 avg60=3.00 avg300=0.00 total=60237922\n\
                    full avg10=99.00 avg60=0.00 avg300=0.00 total=14904318\n";
        assert_eq!(parse(file), Some(12));
        assert_eq!(parse("some avg10=100.00 avg60=1.00 avg300=0.00 total=1\n"), Some(100));
    }

    #[test]
    fn what_is_no_gauge_says_nothing() {
        for text in ["", "full avg10=1.00\n", "some avg10=x.1\n", "some avg10=101.00\n"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Gauge(None).read(), None);
    }

    #[test]
    fn this_kernel_is_understood_if_it_measures() {
        let gauge = Gauge::open();
        assert_eq!(gauge.read().is_some(), gauge.0.is_some_and(|_| std::fs::read(FILE).is_ok()));
    }
}
