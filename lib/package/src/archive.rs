//! How is a package read and written? The only place that knows the zip format.

use crate::error::Error;
use crate::name::{self, Place};
use crate::{CONFIGURATION, CONTENT_MAX, Contents, ENTRIES_MAX, PACKAGE_MAX, RATIO_FROM, RATIO_MAX, tree};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// Bits of a mode that say what kind of file it is.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// Unpacks `package` into the new directory `into`. After an error there is no such directory.
pub fn unpack(package: &Path, into: &Path) -> Result<Contents, Error> {
    let file = File::open(package).map_err(|e| Error::file(package, e))?;
    let length = file.metadata().map_err(|e| Error::file(package, e))?.len();
    if length > PACKAGE_MAX {
        return Err(Error::TooBig(format!("{} is longer than {} MiB", package.display(), PACKAGE_MAX >> 20)));
    }
    let damaged = |e: zip::result::ZipError| Error::NoArchive { path: package.to_owned(), reason: e.to_string() };
    let mut archive = ZipArchive::new(BufReader::new(&file)).map_err(damaged)?;
    let listed = listed(&file, archive.central_directory_start()).map_err(|e| Error::file(package, e))?;
    if listed != archive.len() {
        let reason = format!("of its {listed} entries some have the same name");
        return Err(Error::NoArchive { path: package.to_owned(), reason });
    }
    fs::create_dir(into).map_err(|e| Error::file(into, e))?;
    let unpacked = entries(&mut archive, package, length, into);
    if unpacked.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(into);
    }
    unpacked
}

fn entries<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    package: &Path,
    length: u64,
    into: &Path,
) -> Result<Contents, Error> {
    if archive.len() > ENTRIES_MAX {
        return Err(Error::TooBig(format!("{} entries, more than {ENTRIES_MAX}", archive.len())));
    }
    let mut contents = Contents::default();
    let mut enclosing = None;
    let mut left = CONTENT_MAX.min(RATIO_FROM.max(length.saturating_mul(RATIO_MAX)));
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|e| Error::NoArchive { path: package.to_owned(), reason: e.to_string() })?;
        let place = name::place(entry.name_raw()).map_err(|(name, reason)| Error::entry(&name, reason))?;
        let shown = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let directory = shown.ends_with('/');
        match entry.unix_mode().map(|mode| mode & KIND) {
            None | Some(0) => {}
            Some(REGULAR) => {}
            Some(DIRECTORY) if directory => {}
            Some(_) => return Err(Error::entry(&shown, "is a link or a special file")),
        }
        let mode = entry.unix_mode();
        let path = match place {
            Place::Other(path) => {
                enclosing =
                    enclosing.or_else(|| path.strip_suffix(CONFIGURATION)?.strip_suffix('/').map(str::to_owned));
                contents.left_out.push(path);
                continue;
            }
            Place::Id => {
                contents.id = Some(number(&mut entry)?);
                continue;
            }
            Place::Part(path) => path,
        };
        let target = into.join(&path);
        if directory {
            fs::create_dir_all(&target).map_err(|e| clash(&shown, &target, e))?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|e| clash(&shown, &target, e))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&target)
            .map_err(|e| clash(&shown, &target, e))?;
        let head = copy(&mut entry, &mut file, &mut left, &shown)?;
        // Made by a tool that knows no modes: scripts are recognised by their first line.
        let executable = match mode.map(|m| m & 0o777) {
            None | Some(0) => path.starts_with("bin/") && head.starts_with(b"#!"),
            Some(bits) => bits & 0o111 != 0,
        };
        if executable {
            file.set_permissions(fs::Permissions::from_mode(0o755)).map_err(|e| Error::file(&target, e))?;
        }
        contents.files.push(path);
    }
    if !contents.files.iter().any(|f| f == CONFIGURATION) {
        return Err(Error::NoConfiguration { enclosing });
    }
    contents.files.sort();
    Ok(contents)
}

/// How many entries the archive lists. The library keeps one of those that have the same name; another tool may show the other one.
fn listed(file: &File, mut at: u64) -> io::Result<usize> {
    let mut count = 0;
    let mut header = [0; 46];
    loop {
        match file.read_exact_at(&mut header, at) {
            Ok(()) if header.starts_with(b"PK\x01\x02") => count += 1,
            Ok(()) => return Ok(count),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(count),
            Err(e) => return Err(e),
        }
        // Name, extra field, comment.
        let rest = [28, 30, 32].map(|n| u64::from(u16::from_le_bytes([header[n], header[n + 1]])));
        at += header.len() as u64 + rest.iter().sum::<u64>();
    }
}

/// The directory is new and nobody else's: whatever is in the way was in the package before.
fn clash(name: &str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Error::entry(name, "is there twice, or both as a file and as a directory")
        }
        _ => Error::file(path, error),
    }
}

/// Copies a file and counts what really comes; returns its first bytes.
fn copy(entry: &mut impl Read, file: &mut File, left: &mut u64, name: &str) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match entry.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::entry(name, format!("cannot be unpacked: {e}"))),
        };
        *left = left.checked_sub(count as u64).ok_or_else(|| {
            Error::TooBig(format!("its contents exceed {} MiB, or {RATIO_MAX} times its own length", CONTENT_MAX >> 20))
        })?;
        if head.len() < 2 {
            head.extend_from_slice(&buffer[..count.min(2)]);
        }
        file.write_all(&buffer[..count]).map_err(|e| Error::file(Path::new(name), e))?;
    }
    Ok(head)
}

fn number(entry: &mut impl Read) -> Result<u16, Error> {
    let mut text = String::new();
    entry.take(16).read_to_string(&mut text).map_err(|e| Error::entry("id", format!("cannot be read: {e}")))?;
    match text.trim().parse() {
        Ok(id @ 1..=1000) => Ok(id),
        _ => Err(Error::entry("id", "is no number from 1 to 1000")),
    }
}

/// Packs the module in the directory `module` into the new file `package`: the same files give the same package. After an error there is
/// no such file.
pub fn pack(module: &Path, id: Option<u16>, package: &Path) -> Result<Vec<String>, Error> {
    let sources = tree::files(module)?;
    if !sources.iter().any(|s| s.name == CONFIGURATION) {
        return Err(Error::NoConfiguration { enclosing: None });
    }
    let file = OpenOptions::new().write(true).create_new(true).open(package).map_err(|e| Error::file(package, e))?;
    let written = write(&sources, id, package, &file).and_then(|()| {
        file.sync_all().map_err(|e| Error::file(package, e))?;
        checked(package)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(package);
    }
    written.map(|()| sources.into_iter().map(|s| s.name).collect())
}

fn write(sources: &[tree::Source], id: Option<u16>, package: &Path, file: &File) -> Result<(), Error> {
    let failed = |e: zip::result::ZipError| Error::NoArchive { path: package.to_owned(), reason: e.to_string() };
    let mut writer = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default();
    let mut left = CONTENT_MAX;
    for source in sources {
        let mode = if source.executable { 0o755 } else { 0o644 };
        writer.start_file(source.name.as_str(), options.unix_permissions(mode)).map_err(failed)?;
        let content = File::open(&source.content).map_err(|e| Error::file(&source.content, e))?;
        let count = io::copy(&mut content.take(left.saturating_add(1)), &mut writer)
            .map_err(|e| Error::file(&source.content, e))?;
        left = left
            .checked_sub(count)
            .ok_or_else(|| Error::TooBig(format!("its files have more than {} MiB", CONTENT_MAX >> 20)))?;
    }
    if let Some(id) = id {
        writer.start_file("id", options.unix_permissions(0o644)).map_err(failed)?;
        writer.write_all(format!("{id}\n").as_bytes()).map_err(|e| Error::file(package, e))?;
    }
    let mut buffer = writer.finish().map_err(failed)?;
    buffer.flush().map_err(|e| Error::file(package, e))
}

/// What was packed can be installed: the limits on the other side are known here.
fn checked(package: &Path) -> Result<(), Error> {
    let length = fs::metadata(package).map_err(|e| Error::file(package, e))?.len();
    let file = File::open(package).map_err(|e| Error::file(package, e))?;
    let damaged = |e: zip::result::ZipError| Error::NoArchive { path: package.to_owned(), reason: e.to_string() };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let mut total = 0_u64;
    for index in 0..archive.len() {
        total += archive.by_index(index).map_err(damaged)?.size();
    }
    if length > PACKAGE_MAX || total > RATIO_FROM.max(length.saturating_mul(RATIO_MAX)) {
        return Err(Error::TooBig(format!("{length} bytes packed, {total} unpacked")));
    }
    Ok(())
}
