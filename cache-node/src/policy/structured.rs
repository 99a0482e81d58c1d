//! Structured Field dictionaries (RFC 8941), as far as `CDN-Cache-Control` needs them: which member
//! has which type, and the values of integers and booleans.
//!
//! Invariants: the grammar is exact, and anything outside it refuses the whole field (section 4.2);
//! time is linear in the field's length, depth is bounded by the grammar.

/// A member's value; of types that no cache directive uses, only that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Integer(i64),
    Boolean(bool),
    Other,
}

/// The members in order of first appearance, a repeated key with its last value (section 4.2.2);
/// `None` for a malformed field.
pub(super) fn dictionary(text: &[u8]) -> Option<Vec<(&[u8], Item)>> {
    let mut parser = Parser { rest: text };
    let mut members: Vec<(&[u8], Item)> = Vec::new();
    parser.skip(b" ");
    while !parser.rest.is_empty() {
        let key = parser.key()?;
        let item = if parser.take(b'=') {
            let item = if parser.take(b'(') { parser.inner_list()? } else { parser.bare_item()? };
            parser.parameters()?;
            item
        } else {
            parser.parameters()?;
            Item::Boolean(true)
        };
        match members.iter_mut().find(|(known, _)| *known == key) {
            Some(member) => member.1 = item,
            None => members.push((key, item)),
        }
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            return Some(members);
        }
        if !parser.take(b',') {
            return None;
        }
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn skip(&mut self, bytes: &[u8]) {
        self.while_in(|byte| bytes.contains(&byte));
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.rest.first() == Some(&byte);
        if taken {
            self.rest = &self.rest[1..];
        }
        taken
    }

    fn while_in(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !accept(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let first = *self.rest.first()?;
        if !first.is_ascii_lowercase() && first != b'*' {
            return None;
        }
        Some(
            self.while_in(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)),
        )
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(b" ");
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn inner_list(&mut self) -> Option<Item> {
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Some(Item::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.rest.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn bare_item(&mut self) -> Option<Item> {
        match *self.rest.first()? {
            b'"' => self.string(),
            b'?' => self.boolean(),
            b':' => self.bytes(),
            b'-' | b'0'..=b'9' => self.number(),
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.while_in(|b| is_token(b) || b == b':' || b == b'/');
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn string(&mut self) -> Option<Item> {
        self.take(b'"');
        loop {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            match first {
                b'"' => return Some(Item::Other),
                b'\\' if self.take(b'"') || self.take(b'\\') => {}
                b'\\' => return None,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    fn boolean(&mut self) -> Option<Item> {
        self.take(b'?');
        if self.take(b'1') {
            Some(Item::Boolean(true))
        } else if self.take(b'0') {
            Some(Item::Boolean(false))
        } else {
            None
        }
    }

    fn bytes(&mut self) -> Option<Item> {
        self.take(b':');
        self.while_in(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        self.take(b':').then_some(Item::Other)
    }

    fn number(&mut self) -> Option<Item> {
        let negative = self.take(b'-');
        let digits = self.while_in(|b| b.is_ascii_digit());
        if self.take(b'.') {
            let fraction = self.while_in(|b| b.is_ascii_digit());
            let fits = matches!(digits.len(), 1..=12) && matches!(fraction.len(), 1..=3);
            return fits.then_some(Item::Other);
        }
        if !matches!(digits.len(), 1..=15) {
            return None;
        }
        let number = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(if negative { -number } else { number }))
    }
}

/// `tchar` (RFC 9110 section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_types() {
        let read =
            dictionary(b"  a, b=?0;x;y=1 ,\tc=-15, d=\"q\\\"\", e=tok/en, f=(1 \"a\";p), g=1.5");
        let expected: &[(&[u8], Item)] = &[
            (b"a", Item::Boolean(true)),
            (b"b", Item::Boolean(false)),
            (b"c", Item::Integer(-15)),
            (b"d", Item::Other),
            (b"e", Item::Other),
            (b"f", Item::Other),
            (b"g", Item::Other),
        ];
        assert_eq!(read.as_deref(), Some(expected));
        assert_eq!(dictionary(b""), Some(vec![]));
        let twice: &[(&[u8], Item)] = &[(b"a", Item::Integer(2)), (b"b", Item::Boolean(true))];
        assert_eq!(dictionary(b"a=1, b, a=2").as_deref(), Some(twice));
    }

    #[test]
    fn one_fault_refuses_the_field() {
        for bad in [
            "a,",
            ",a",
            "a b",
            "A=1",
            "a =1",
            "a= 1",
            "a=",
            "a=1.",
            "a=1.2345",
            "a=--1",
            "a=-",
            "a=1234567890123456",
            "a=\"x",
            "a=\"\\x\"",
            "a=?2",
            "a=:x",
            "a=(1",
            "a=(1\"b\")",
            "a;",
            "a;=1",
            "a=@1",
            "a=\"\u{e9}\"",
            "1a",
            "a,,b",
            "a\n",
        ] {
            assert_eq!(dictionary(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, text in "[ a-c=,;\"?01.()-]{0,30}") {
            dictionary(&bytes);
            dictionary(text.as_bytes());
        }
    }
}
