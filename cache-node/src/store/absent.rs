//! Which chunks of a stored object are not here: those that nobody has asked for yet, or that were
//! given back for others' room.
//!
//! Invariants: one bit a chunk, least significant first, as the index writes them; bits behind the
//! last chunk are 0. Who writes or gives back chunks of an object holds [`Absent::writing`] until
//! the file is as the bits say, so that no hole is made under a chunk that has just come.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::lock;

/// The chunks that are not here.
#[derive(Debug)]
pub(super) struct Absent {
    chunks: u32,
    bits: Mutex<Vec<u8>>,
    writing: Mutex<()>,
}

impl Absent {
    /// No chunk is here.
    pub(super) fn all(chunks: u32) -> Self {
        Self::new(chunks, vec![u8::MAX; bytes_for(chunks)])
    }

    /// Every chunk is here.
    pub(super) fn none(chunks: u32) -> Self {
        Self::new(chunks, vec![0; bytes_for(chunks)])
    }

    /// What was written with [`Absent::bits`]; `None` when it is of another number of chunks.
    pub(super) fn read(chunks: u32, bits: &[u8]) -> Option<Self> {
        (bits.len() == bytes_for(chunks)).then(|| Self::new(chunks, bits.to_vec()))
    }

    fn new(chunks: u32, mut bits: Vec<u8>) -> Self {
        if let (Some(last), rest @ 1..) = (bits.last_mut(), chunks % 8) {
            *last &= (1 << rest) - 1;
        }
        Self { chunks, bits: Mutex::new(bits), writing: Mutex::default() }
    }

    /// Whether the chunk is not here.
    pub(super) fn has(&self, chunk: u32) -> bool {
        chunk >= self.chunks || is_set(&lock(&self.bits), chunk)
    }

    /// How many are not here.
    pub(super) fn count(&self) -> u32 {
        lock(&self.bits).iter().map(|byte| byte.count_ones()).sum()
    }

    /// As it is written; empty when every chunk is here.
    pub(super) fn bits(&self) -> Vec<u8> {
        written(lock(&self.bits).clone())
    }

    /// As it is written once that chunk is here.
    pub(super) fn bits_with(&self, chunk: u32) -> Vec<u8> {
        let mut bits = lock(&self.bits).clone();
        set(&mut bits, chunk, false);
        written(bits)
    }

    /// The chunk is here now.
    pub(super) fn came(&self, chunk: u32) {
        set(&mut lock(&self.bits), chunk, false);
    }

    /// These chunks are not here any more.
    pub(super) fn left(&self, chunks: &[u32]) {
        let mut bits = lock(&self.bits);
        chunks.iter().for_each(|chunk| set(&mut bits, *chunk, true));
    }

    /// A bit for each chunk that is here, as the index wants to know.
    pub(super) fn held(&self) -> Vec<u8> {
        let absent = lock(&self.bits);
        let held = absent.iter().map(|byte| !byte).collect();
        Self::new(self.chunks, held).bits.into_inner().unwrap_or_default()
    }

    /// Runs of chunks that are here, or of those that are not.
    pub(super) fn runs(&self, absent: bool) -> Vec<Range<u32>> {
        let bits = lock(&self.bits);
        let mut runs: Vec<Range<u32>> = Vec::new();
        for chunk in (0..self.chunks).filter(|chunk| is_set(&bits, *chunk) == absent) {
            match runs.last_mut() {
                Some(last) if last.end == chunk => last.end += 1,
                _ => runs.push(chunk..chunk + 1),
            }
        }
        runs
    }

    /// The right to change the file; waits for whoever has it.
    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        lock(&self.writing)
    }

    /// The same, if nobody has it.
    pub(super) fn try_writing(&self) -> Option<MutexGuard<'_, ()>> {
        self.writing.try_lock().ok()
    }
}

/// Bytes of one bit a chunk.
pub(super) fn bytes_for(chunks: u32) -> usize {
    chunks.div_ceil(8) as usize
}

fn written(bits: Vec<u8>) -> Vec<u8> {
    if bits.iter().all(|byte| *byte == 0) { Vec::new() } else { bits }
}

fn is_set(bits: &[u8], chunk: u32) -> bool {
    bits.get(chunk as usize / 8).is_some_and(|byte| byte & (1 << (chunk % 8)) != 0)
}

fn set(bits: &mut [u8], chunk: u32, value: bool) {
    if let Some(byte) = bits.get_mut(chunk as usize / 8) {
        let bit = 1 << (chunk % 8);
        *byte = if value { *byte | bit } else { *byte & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_and_leave() {
        let absent = Absent::all(10);
        assert_eq!((absent.count(), absent.bits()), (10, vec![0xff, 0b11]));
        assert_eq!(absent.held(), [0, 0]);
        assert_eq!(absent.bits_with(9), [0xff, 0b01]);
        assert!(absent.has(9), "nothing has come yet");
        (0..9).for_each(|chunk| absent.came(chunk));
        assert_eq!((absent.runs(true), absent.runs(false)), (vec![9..10; 1], vec![0..9; 1]));
        assert_eq!(absent.held(), [0xff, 0b01]);
        absent.came(9);
        assert_eq!((absent.count(), absent.bits()), (0, Vec::new()));
        absent.left(&[2, 3, 7]);
        assert_eq!(absent.runs(true), [2..4, 7..8]);
        assert!(absent.has(3) && !absent.has(4) && absent.has(10), "there is no chunk 10");
    }

    #[test]
    fn what_is_written_is_read_or_refused() {
        let absent = Absent::none(17);
        absent.left(&[0, 16]);
        let read = Absent::read(17, &absent.bits()).unwrap();
        assert_eq!(read.runs(true), [0..1, 16..17]);
        assert!(Absent::read(17, &[1, 2]).is_none());
        assert_eq!(Absent::read(3, &[0xff]).unwrap().count(), 3, "bits behind the end are none");
    }
}
