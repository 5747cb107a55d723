//! What does somebody need who helps from afar? One archive of logs, journals, configurations, states and facts, without secrets.

mod facts;
mod redact;

use crate::{Failure, exit};
use flate2::Compression;
use flate2::write::GzEncoder;
use redact::Redactor;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use sys::roots::Roots;
use tar::{Builder, Header};

/// The end of a longer file is kept.
const FILE_LIMIT: u64 = 8 * 1024 * 1024;
/// What is over it is named in `left_out.txt`.
const TOTAL_LIMIT: u64 = 96 * 1024 * 1024;
/// Output files of scripts, the newest.
const USERLOGS: usize = 40;
/// Files of one directory of scripts or configurations.
const FILES: usize = 500;

/// What is being packed.
struct Bundle<'a> {
    builder: Builder<GzEncoder<&'a File>>,
    name: String,
    redactor: Redactor,
    left: u64,
    left_out: Vec<String>,
}

/// `sk-module snapshot`.
pub(crate) fn snapshot(roots: &Roots, modules: &[String], target: &Path) -> Result<u8, Failure> {
    if !target.is_absolute() {
        return Err(Failure::new(exit::USAGE, format!("{} is not absolute", target.display()))
            .hint("name the file from the root directory on: /tmp/snapshot.tar.gz"));
    }
    let mut redactor = Redactor::new().map_err(|e| Failure::system("patterns of secrets", e))?;
    for module in modules {
        for root in [roots.module_source(module), roots.module_active(module)] {
            for path in files(&root.join("conf")).into_iter().chain(files(&root.join("bin"))) {
                if let Ok(text) = end_of(&path) {
                    redactor.learn(&text);
                }
            }
        }
    }
    let node =
        nix::sys::utsname::uname().map_or_else(|_| "node".to_owned(), |u| u.nodename().to_string_lossy().into_owned());
    let shown = sys::progress::beside(|| "packing logs, configurations and states".into());
    // Half a snapshot would be taken for a whole one.
    let packed = crate::support::new_file(target, 0o600, |file| {
        let mut bundle = Bundle {
            builder: Builder::new(GzEncoder::new(file, Compression::default())),
            name: format!("snapshot_{node}_{}", sys::clock::local_time("%Y_%m_%d_%H_%M_%S")),
            redactor,
            left: TOTAL_LIMIT,
            left_out: Vec::new(),
        };
        bundle.pack(roots, modules)?;
        bundle.builder.into_inner()?.finish().map(drop)
    });
    drop(shown);
    packed?;
    say!("{}", target.display());
    Ok(0)
}

impl Bundle<'_> {
    fn pack(&mut self, roots: &Roots, modules: &[String]) -> io::Result<()> {
        for (name, text) in facts::facts(roots) {
            self.text(&format!("host/{name}"), &text)?;
        }
        for (name, path) in [
            ("cluster.xml", roots.cluster_xml()),
            ("cmdlog", sys::commands::path(roots)),
            ("cmdlog.1", roots.var.join("cmdlog.1")),
        ] {
            self.file(&format!("cluster/{name}"), &path)?;
        }
        for module in modules {
            self.module(roots, module)?;
        }
        if !self.left_out.is_empty() {
            let text = self.left_out.join("\n") + "\n";
            self.text("left_out.txt", &text)?;
        }
        Ok(())
    }

    fn module(&mut self, roots: &Roots, module: &str) -> io::Result<()> {
        let (var, run) = (roots.module_var(module), roots.module_run(module));
        for (place, root) in [("editable", roots.module_source(module)), ("active", roots.module_active(module))] {
            for part in ["conf", "bin"] {
                for path in files(&root.join(part)) {
                    let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
                    self.file(&format!("{module}/{place}/{name}"), &path)?;
                }
            }
            for name in ["id", "signature"] {
                self.file(&format!("{module}/{place}/{name}"), &root.join(name))?;
            }
        }
        // The newest first: they are wanted most when not everything fits.
        for name in [
            "log",
            "log.1",
            "core.json",
            "resources.jsonl",
            "resources.1.jsonl",
            "boot",
            "errd.off",
            "journal.jsonl",
            "journal.1.jsonl",
            "journal.2.jsonl",
        ] {
            self.file(&format!("{module}/{name}"), &var.join(name))?;
        }
        for path in files(&run) {
            if let Some(name) = path.file_name().map(|n| n.to_string_lossy().into_owned()) {
                self.file(&format!("{module}/run/{name}"), &path)?;
            }
        }
        let mut userlogs: Vec<PathBuf> =
            files(&var).into_iter().filter(|p| p.extension().is_some_and(|e| e == "ulog")).collect();
        // Their names begin with their date.
        userlogs.reverse();
        for path in userlogs.iter().take(USERLOGS) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            self.file(&format!("{module}/userlog/{name}"), path)?;
        }
        Ok(())
    }

    /// A file that is not there is no error: most modules lack something.
    fn file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        match end_of(path) {
            Ok(text) => self.text(name, &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => {
                self.left_out.push(format!("{name}: {e}"));
                Ok(())
            }
        }
    }

    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = self.redactor.redact(text);
        let size = text.len() as u64;
        let Some(left) = self.left.checked_sub(size) else {
            self.left_out.push(format!("{name}: {size} bytes, the snapshot would be too large"));
            return Ok(());
        };
        self.left = left;
        let mut header = Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(sys::clock::wall_ms() / 1000);
        self.builder.append_data(&mut header, format!("{}/{name}", self.name), text.as_bytes())
    }
}

/// The plain files of a directory and those one level below it, by name; nothing when there is none.
fn files(directory: &Path) -> Vec<PathBuf> {
    let list = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
        let mut paths: Vec<PathBuf> = entries.collect();
        paths.sort();
        paths
    };
    let is = |path: &Path, directory: bool| {
        std::fs::symlink_metadata(path).is_ok_and(|m| if directory { m.is_dir() } else { m.is_file() })
    };
    let first = list(directory);
    let below = first.iter().filter(|p| is(p, true)).flat_map(|p| list(p)).collect::<Vec<_>>();
    first.into_iter().chain(below).filter(|p| is(p, false)).take(FILES).collect()
}

/// A file as text, or its end.
fn end_of(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (skipped, bytes) = sys::files::read_end(path, FILE_LIMIT)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(if skipped > 0 { format!("… {skipped} bytes before this were left out\n{text}") } else { text.into_owned() })
}
