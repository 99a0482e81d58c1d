//! The file that `--edges-file` names: read at the start, and again whenever its text changes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::io::AsyncReadExt;

use super::{edges::Change, ledger::Ledger, progress::Progress};
use crate::{
    clock::Clock,
    scenario::{EdgeUrl, edge_url::EdgeUrlError, run::EDGES_MAX},
};

/// How often the file is looked at.
pub const EDGES_POLL_MS: u64 = 200;
/// The longest file that is read.
pub const EDGES_FILE_MAX_BYTES: u64 = 256 << 10;

/// Why a list of edges cannot be used.
#[derive(Debug, Error)]
pub enum EdgesFileError {
    /// The file cannot be read.
    #[error("--edges-file {path}: {source}; write one URL per line to it before the run")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file holds no URL.
    #[error("--edges-file {0}: no edge in it; write one URL per line, as http://127.0.0.1:8080")]
    Empty(PathBuf),
    /// The file is too long.
    #[error(
        "--edges-file {0}: longer than {EDGES_FILE_MAX_BYTES} bytes; list at most {EDGES_MAX} edges"
    )]
    TooLong(PathBuf),
    /// A line is no edge.
    #[error("--edges-file {path}, line {line}: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: EdgeUrlError,
    },
}

/// Reads the list.
///
/// # Errors
/// When the file cannot be read, is too long, or has a line that is no edge. An empty list is
/// [`EdgesFileError::Empty`].
pub async fn read(path: &Path) -> Result<Vec<EdgeUrl>, EdgesFileError> {
    let failed = |source| EdgesFileError::Read { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let mut limited = file.take(EDGES_FILE_MAX_BYTES + 1);
    limited.read_to_string(&mut text).await.map_err(failed)?;
    if text.len() as u64 > EDGES_FILE_MAX_BYTES {
        return Err(EdgesFileError::TooLong(path.to_owned()));
    }
    let list = parse(&text).map_err(|(line, source)| EdgesFileError::Line {
        path: path.to_owned(),
        line,
        source,
    })?;
    if list.is_empty() {
        return Err(EdgesFileError::Empty(path.to_owned()));
    }
    Ok(list)
}

/// One URL per line; empty lines and what follows a `#` do not count.
fn parse(text: &str) -> Result<Vec<EdgeUrl>, (usize, EdgeUrlError)> {
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split('#').next().unwrap_or("").trim();
        (!line.is_empty()).then_some((index + 1, line))
    });
    lines.map(|(number, line)| line.parse().map_err(|error| (number, error))).collect()
}

/// Follows the file until the task is aborted. A list that cannot be used is told once and changes
/// nothing; an empty one is a file that is just being written.
pub async fn follow(path: PathBuf, ledger: Arc<Ledger>, clock: Clock, progress: Progress) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(Duration::from_millis(EDGES_POLL_MS)).await;
        let message = match read(&path).await {
            Ok(list) => announcement(ledger.update_edges(&list, clock.now()), ledger.listed()),
            Err(EdgesFileError::Empty(_)) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(message) = message.filter(|message| *message != told) {
            progress.note(&message);
            told = message;
        }
    }
}

fn announcement(change: Change, listed: usize) -> Option<String> {
    let Change { added, removed, refused } = change;
    if refused > 0 {
        return Some(format!("{refused} edges are left out: one run takes at most {EDGES_MAX}"));
    }
    let changed = added + removed > 0;
    changed.then(|| format!("edges changed: {added} added, {removed} removed, {listed} listed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_and_skips_comments() {
        let text = "# live\nhttp://a:1\n\n  http://b:2/  # second\n";
        let list: Vec<String> = parse(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(list, ["http://a:1", "http://b:2"]);
        assert_eq!(parse("\n#x\n").unwrap().len(), 0);
        assert_eq!(parse("http://a:1\nb:2\n").unwrap_err().0, 2);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edges");
        let said = async || read(&path).await.unwrap_err().to_string();
        assert!(said().await.contains("write one URL per line"));
        std::fs::write(&path, "").unwrap();
        assert!(said().await.contains("no edge in it"));
        std::fs::write(&path, "http://a:1\nhttps://b:2\n").unwrap();
        assert!(said().await.contains("line 2: `https://b:2`"));
        std::fs::write(&path, " ".repeat(300 << 10)).unwrap();
        assert!(said().await.contains("longer than"));
    }
}
