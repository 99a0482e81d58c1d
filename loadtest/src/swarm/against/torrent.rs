//! The file that names an object for BitTorrent (BEP 3): its length, the SHA-1 of every piece, and
//! a tracker.

use std::io::{self, Read};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What a piece holds: as much as a chunk of Shoal's does, for objects of this benchmark's size.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// A torrent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Torrent {
    /// The file.
    pub(super) file: Vec<u8>,
    /// What the tracker knows it by, in hexadecimal digits.
    pub(super) info_hash: String,
}

impl Torrent {
    /// Of what `body` holds, as the file `name`, with the tracker at that URL.
    pub(super) fn of(mut body: impl Read, name: &str, tracker: &str) -> io::Result<Self> {
        let (mut pieces, mut length) = (Vec::new(), 0);
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        loop {
            piece.clear();
            let read = body.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            if read == 0 {
                break;
            }
            length += read;
            let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            hash.update(&piece);
            pieces.extend_from_slice(hash.finish().as_ref());
        }
        // Keys stand in the order of their bytes.
        let mut info = format!("d6:lengthi{length}e4:name{}", text(name)).into_bytes();
        info.extend(format!("12:piece lengthi{PIECE_BYTES}e6:pieces{}:", pieces.len()).bytes());
        info.extend(pieces);
        info.push(b'e');
        let info_hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &info);
        let info_hash = info_hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut file = format!("d8:announce{}4:info", text(tracker)).into_bytes();
        file.extend(info);
        file.push(b'e');
        Ok(Self { file, info_hash })
    }
}

fn text(text: &str) -> String {
    format!("{}:{text}", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_is_what_other_programs_make_of_the_same_file() {
        // Checked against a torrent made by another program.
        let torrent = Torrent::of(&b"abc"[..], "object", "http://t/announce").unwrap();
        let head = b"d8:announce17:http://t/announce4:infod6:lengthi3e4:name6:object\
            12:piece lengthi262144e6:pieces20:";
        let sha1_of_abc =
            b"\xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9d";
        assert_eq!(torrent.file, [&head[..], sha1_of_abc, b"ee"].concat());
        assert_eq!(torrent.info_hash.len(), 40);
        let two = Torrent::of(&vec![0; PIECE_BYTES + 1][..], "object", "http://t/").unwrap();
        assert_eq!(two.file.len(), torrent.file.len() - 9 + 20 + 5, "two pieces");
    }
}
