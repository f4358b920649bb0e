//! Reading the open gauges of one sandbox: by init at its end, by the server at any time.
//!
//! A read is one `pread` of a short text; nothing is opened or waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::wire::Gauge;
use crate::{MemoryUse, Traffic};

/// Reads how much memory is and was used.
pub(crate) fn memory(gauges: &[(Gauge, OwnedFd)]) -> io::Result<MemoryUse> {
    let current = number(gauges, Gauge::MemoryCurrent)?;
    let peak = memory_peak(gauges)?;
    let oom_kills = keyed(&read(gauges, Gauge::MemoryEvents)?, "oom_kill").unwrap_or(0);
    Ok(MemoryUse { current, peak, oom_kills })
}

/// Reads the most memory that was used: one read, for whoever asks after every invocation.
pub(crate) fn memory_peak(gauges: &[(Gauge, OwnedFd)]) -> io::Result<u64> {
    match number(gauges, Gauge::MemoryPeak) {
        // Before Linux 5.19 v2 does not keep it.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            number(gauges, Gauge::MemoryCurrent)
        }
        peak => peak,
    }
}

/// Reads how many bytes went in and out.
pub(crate) fn traffic(gauges: &[(Gauge, OwnedFd)]) -> io::Result<Traffic> {
    let received = number(gauges, Gauge::NetReceived)?;
    Ok(Traffic { received, sent: number(gauges, Gauge::NetSent)? })
}

/// Reads how much processor time was used.
pub(crate) fn cpu_time(gauges: &[(Gauge, OwnedFd)]) -> io::Result<Duration> {
    match number(gauges, Gauge::CpuNanos) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let text = read(gauges, Gauge::CpuStat)?;
            let micros = keyed(&text, "usage_usec").ok_or(io::ErrorKind::InvalidData)?;
            Ok(Duration::from_micros(micros))
        }
        Err(error) => Err(error),
    }
}

fn read(gauges: &[(Gauge, OwnedFd)], wanted: Gauge) -> io::Result<String> {
    let mut buffer = [0; 1024];
    let read = pread(gauges, wanted, &mut buffer)?;
    Ok(String::from_utf8_lossy(read).into_owned())
}

/// The gauges that are asked after every invocation are a number each.
fn number(gauges: &[(Gauge, OwnedFd)], wanted: Gauge) -> io::Result<u64> {
    let mut buffer = [0; 32];
    let text = pread(gauges, wanted, &mut buffer)?.trim_ascii();
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn pread<'a>(
    gauges: &[(Gauge, OwnedFd)],
    wanted: Gauge,
    buffer: &'a mut [u8],
) -> io::Result<&'a [u8]> {
    let found = gauges.iter().find(|(gauge, _)| *gauge == wanted);
    let Some((_, fd)) = found else { return Err(io::ErrorKind::Unsupported.into()) };
    let read = rustix::io::pread(fd, &mut *buffer, 0)?;
    Ok(buffer.get(..read).unwrap_or_default())
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gauge(gauge: Gauge, text: &str) -> (Gauge, OwnedFd) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        (gauge, file.into())
    }

    #[test]
    fn v1_files_are_understood() {
        let gauges = [
            gauge(Gauge::MemoryCurrent, "4096\n"),
            gauge(Gauge::MemoryPeak, "8192\n"),
            gauge(Gauge::MemoryEvents, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            gauge(Gauge::CpuNanos, "1500\n"),
        ];
        let expected = MemoryUse { current: 4096, peak: 8192, oom_kills: 3 };
        assert_eq!(memory(&gauges).unwrap(), expected);
        assert_eq!(cpu_time(&gauges).unwrap(), Duration::from_nanos(1500));
    }

    #[test]
    fn v2_files_are_understood_also_without_a_peak() {
        let gauges = [
            gauge(Gauge::MemoryCurrent, "4096\n"),
            gauge(Gauge::MemoryEvents, "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n"),
            gauge(Gauge::CpuStat, "usage_usec 70\nuser_usec 40\nsystem_usec 30\n"),
        ];
        let expected = MemoryUse { current: 4096, peak: 4096, oom_kills: 1 };
        assert_eq!(memory(&gauges).unwrap(), expected);
        assert_eq!(cpu_time(&gauges).unwrap(), Duration::from_micros(70));
    }

    #[test]
    fn a_missing_gauge_is_unsupported() {
        assert_eq!(memory(&[]).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(cpu_time(&[]).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
