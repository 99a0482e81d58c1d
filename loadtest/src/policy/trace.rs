//! Reads traces: `id,size` lines, sizes in bytes, ids of any form; a first line without a number
//! in its second column is a heading. Lines that start with `#` and empty ones are passed over.

use std::collections::HashMap;
use std::io::{self, BufRead};

use thiserror::Error;

/// Longest line of a trace, in bytes.
const LINE_BYTES_MAX: u64 = 4 * 1024;
/// Most requests of a trace: the ids and sizes of so many take 3 GiB.
const REQUESTS_MAX: usize = 256 * 1024 * 1024;

/// One request: a number for the object, and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The object, numbered by its first appearance.
    pub object: u32,
    /// Its size at this request.
    pub bytes: u64,
}

/// A trace that cannot be read.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file or the pipe failed.
    #[error("line {line}: {source}")]
    Read {
        /// Counted from 1.
        line: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line of another form.
    #[error("line {line} is {text:?}; write `id,size` with the size in bytes, as in `1047,65536`")]
    Form {
        /// Counted from 1.
        line: usize,
        /// The line, or its beginning.
        text: String,
    },
    /// A file that looks packed.
    #[error(
        "the trace is no text; only gzip is unpacked here: `zstdcat TRACE | shoal-loadtest policy --trace -`"
    )]
    Packed,
    /// Nothing to replay.
    #[error("the trace has no request")]
    Empty,
    /// More than memory should hold.
    #[error("the trace has more than {REQUESTS_MAX} requests; split it")]
    TooLong,
}

/// Reads a whole trace.
///
/// # Errors
/// When a line is not of the form, or there is none.
pub fn read(mut input: impl BufRead) -> Result<Vec<Request>, TraceError> {
    let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut requests = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let mut limited = io::Read::take(&mut input, LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut text);
        if read.map_err(|source| TraceError::Read { line, source })? == 0 {
            break;
        }
        if line == 1 && text.contains(&0) {
            return Err(TraceError::Packed);
        }
        let content = text.trim_ascii();
        if content.is_empty() || content.starts_with(b"#") {
            continue;
        }
        let Some((id, bytes)) = split(content) else {
            if requests.is_empty() && line == 1 {
                continue;
            }
            let text = String::from_utf8_lossy(&content[..content.len().min(80)]).into_owned();
            return Err(TraceError::Form { line, text });
        };
        let next = u32::try_from(numbers.len()).map_err(|_| TraceError::TooLong)?;
        let object = match numbers.get(id) {
            Some(number) => *number,
            None => *numbers.entry(id.to_vec()).or_insert(next),
        };
        if requests.len() == REQUESTS_MAX {
            return Err(TraceError::TooLong);
        }
        requests.push(Request { object, bytes });
    }
    if requests.is_empty() { Err(TraceError::Empty) } else { Ok(requests) }
}

/// Id and size of a line; further columns are passed over.
fn split(line: &[u8]) -> Option<(&[u8], u64)> {
    let mut columns = line.split(|byte| *byte == b',');
    let id = columns.next()?.trim_ascii();
    let size = std::str::from_utf8(columns.next()?.trim_ascii()).ok()?;
    (!id.is_empty()).then_some((id, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(object: u32, bytes: u64) -> Request {
        Request { object, bytes }
    }

    /// What `fuzz/` calls for hours, for a moment.
    #[test]
    fn nonsense_is_refused_or_read_and_never_more() {
        let mut state = 7_u64;
        let mut next = |end: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % end
        };
        const PIECES: [&[u8]; 9] =
            [b"id,size\n", b"7", b",", b"\n", b"18446744073709551616", b"#", b"\xff", b" ", b"\0"];
        for _ in 0..3_000 {
            let text: Vec<u8> =
                (0..next(24)).flat_map(|_| PIECES[next(PIECES.len())].to_vec()).collect();
            if let Ok(requests) = read(&text[..]) {
                assert!(requests.len() <= text.iter().filter(|byte| **byte == b'\n').count() + 1);
            }
        }
    }

    #[test]
    fn ids_are_numbered_as_they_come() {
        let read = read(&b"id,size\n7,10\n# a remark\n\nx/y , 20,99\n7,10\r\n"[..]).unwrap();
        assert_eq!(read, [request(0, 10), request(1, 20), request(0, 10)]);
    }

    #[test]
    fn a_first_line_may_be_a_request() {
        assert_eq!(read(&b"7,10"[..]).unwrap(), [request(0, 10)]);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, wanted) in [
            ("id,size\n1,2\n1;2\n", "line 3 is \"1;2\""),
            ("1,2\n1,-2\n", "line 2"),
            ("1,2\n,2\n", "line 2"),
            ("1,2\n1,99999999999999999999\n", "line 2"),
            ("", "no request"),
            ("id,size\n", "no request"),
            ("(\u{b5}/\0", "zstdcat"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_endless_line_is_an_error() {
        let line = vec![b'1'; 3 * LINE_BYTES_MAX as usize];
        assert!(matches!(read(&line[..]), Err(TraceError::Form { .. } | TraceError::Empty)));
    }
}
