//! The objects of a run as files, for an origin of another kind.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    content::{Content, ObjectName},
    scenario::cli::CatalogArgs,
    workload::Workload,
};

/// Bytes made at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Writes every object that a run with the same flags asks for below `folder`, at its path; returns
/// how many there are and their bytes.
///
/// # Errors
/// When one cannot be written.
pub fn write(folder: &Path, args: &CatalogArgs) -> io::Result<(usize, u64)> {
    let named = (args.prefix.as_str(), args.workload_seed);
    let catalog = Workload::objects(named, args.objects, &args.sizes);
    let content = Content::new(args.seed);
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    for object in 0..catalog.len() {
        let path = catalog.path(object);
        let name = ObjectName::parse(&path).map_err(io::Error::other)?;
        let file = folder.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap_or(folder))?;
        let mut file = BufWriter::new(File::create(&file)?);
        let mut reader = content.open(&name, 0);
        loop {
            let len = reader.read(&mut piece);
            if len == 0 {
                break;
            }
            file.write_all(&piece[..len])?;
            bytes += len as u64;
        }
        file.flush()?;
    }
    Ok((catalog.len(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Cli, Command};
    use clap::Parser;

    #[test]
    fn files_are_what_a_run_expects() {
        let folder = tempfile::tempdir().unwrap();
        let line =
            ["shoal-loadtest", "objects", "--objects=4", "--sizes=100:1,70000:1", "--seed=3"];
        let line = line.into_iter().map(Into::into).chain([folder.path().as_os_str().to_owned()]);
        let Command::Objects(args) = Cli::parse_from(line).command else { unreachable!() };
        assert_eq!(write(&args.folder, &args.catalog).unwrap(), (4, 140_200));
        let catalog = Workload::objects(("load", 1), 4, &args.catalog.sizes);
        for object in 0..4 {
            let path = catalog.path(object);
            let mut expected = vec![0; usize::try_from(catalog.size_bytes(object)).unwrap()];
            Content::new(3).read(&path, 0, &mut expected).unwrap();
            assert_eq!(fs::read(folder.path().join(&path[1..])).unwrap(), expected, "{path}");
        }
    }
}
