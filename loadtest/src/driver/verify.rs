//! Comparing a body with what it should be, as it comes (PURE).

use crate::{
    content::ContentReader,
    sample::{Failure, FailureKind},
};

/// Expected bytes made at a time.
const COMPARE_BYTES: usize = 16 << 10;

/// Compares one body from its first byte on.
#[derive(Debug)]
pub struct Verifier {
    expected: ContentReader,
    scratch: Vec<u8>,
    size_bytes: u64,
    offset: u64,
}

impl Verifier {
    /// Expects what `expected` reads.
    #[must_use]
    pub fn new(expected: ContentReader) -> Self {
        let size_bytes = expected.left_bytes();
        let scratch = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(COMPARE_BYTES);
        Self { expected, scratch: vec![0; scratch], size_bytes, offset: 0 }
    }

    /// Compares the next bytes.
    ///
    /// # Errors
    /// The first byte that differs, or bytes after the object's end.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let room = bytes.len().min(self.scratch.len());
            let len = self.expected.read(&mut self.scratch[..room]);
            if len == 0 {
                let detail = format!("more bytes than the object's {}", self.size_bytes);
                return Err(Failure::new(FailureKind::Wrong, detail));
            }
            let (now, rest) = bytes.split_at(len);
            self.compare(now)?;
            self.offset += len as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Says whether the body was whole.
    ///
    /// # Errors
    /// When bytes are missing.
    pub fn finish(&self) -> Result<(), Failure> {
        if self.offset == self.size_bytes {
            return Ok(());
        }
        Err(self.truncated("the body ended"))
    }

    /// A failure for a body that broke off for the reason `why`.
    #[must_use]
    pub fn truncated(&self, why: &str) -> Failure {
        let detail = format!("after {} of {} bytes: {why}", self.offset, self.size_bytes);
        Failure::new(FailureKind::Truncated, detail)
    }

    fn compare(&self, bytes: &[u8]) -> Result<(), Failure> {
        let expected = &self.scratch[..bytes.len()];
        if bytes == expected {
            return Ok(());
        }
        let at = bytes.iter().zip(expected).take_while(|(got, want)| got == want).count();
        let detail = format!(
            "byte {} of {} is {:#04x}, not {:#04x}",
            self.offset + at as u64,
            self.size_bytes,
            bytes[at],
            expected[at]
        );
        Err(Failure::new(FailureKind::Wrong, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Content, ObjectName};

    const PATH: &str = "/o/40000/v";

    fn verifier() -> Verifier {
        Verifier::new(Content::new(1).open(&ObjectName::parse(PATH).unwrap(), 0))
    }

    fn body() -> Vec<u8> {
        let mut body = vec![0; 40_000];
        Content::new(1).read(PATH, 0, &mut body).unwrap();
        body
    }

    #[test]
    fn the_right_bytes_pass_in_any_pieces() {
        for piece in [1, 7, 4096, 30_000, 40_000] {
            let mut verifier = verifier();
            body().chunks(piece).for_each(|bytes| verifier.feed(bytes).unwrap());
            assert_eq!(verifier.finish(), Ok(()), "pieces of {piece}");
        }
    }

    #[test]
    fn one_flipped_bit_is_found_and_named() {
        let mut body = body();
        body[33_333] ^= 0x10;
        let mut verifier = verifier();
        let failures: Vec<_> =
            body.chunks(1000).filter_map(|bytes| verifier.feed(bytes).err()).collect();
        assert_eq!(failures[0].kind, FailureKind::Wrong);
        assert!(failures[0].detail.starts_with("byte 33333 of 40000 is"), "{failures:?}");
    }

    #[test]
    fn missing_and_surplus_bytes_are_told_apart() {
        let mut short = verifier();
        short.feed(&body()[..39_999]).unwrap();
        let failure = short.finish().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Truncated);
        assert_eq!(failure.detail, "after 39999 of 40000 bytes: the body ended");
        let mut long = verifier();
        long.feed(&body()).unwrap();
        assert_eq!(long.feed(b"x").unwrap_err().kind, FailureKind::Wrong);
    }

    #[test]
    fn an_empty_object_takes_no_byte() {
        let object = ObjectName::parse("/o/0/e").unwrap();
        let mut verifier = Verifier::new(Content::new(1).open(&object, 0));
        assert_eq!(verifier.finish(), Ok(()));
        assert_eq!(verifier.feed(b"x").unwrap_err().kind, FailureKind::Wrong);
    }
}
