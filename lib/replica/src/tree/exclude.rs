//! Which names of a replicated directory are not replicated?

use regex::bytes::Regex;

/// One exclusion, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A file or subtree, relative to the replicated directory.
    Path(String),
    /// An extended regular expression. Without `/` it is searched in the name of each entry (and of the directories above it),
    /// with `/` in the relative path. A leading `!` inverts: among the entries that are not directories, only those that match
    /// one such rule are replicated.
    Regex(String),
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the expression {expression:?} of what is not replicated cannot be used: {reason}")]
pub struct ExcludeError {
    pub expression: String,
    pub reason: String,
}

/// Rules ready to be asked. The default excludes nothing.
#[derive(Debug, Default)]
pub struct Exclude {
    paths: Vec<Vec<u8>>,
    out: Vec<Pattern>,
    only: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    whole_path: bool,
}

impl Pattern {
    fn matches(&self, path: &[u8], name: &[u8]) -> bool {
        self.regex.is_match(if self.whole_path { path } else { name })
    }
}

impl Exclude {
    /// Compiles the rules. Memory of each expression is bounded.
    pub fn new(rules: &[Rule]) -> Result<Self, ExcludeError> {
        let mut this = Self::default();
        for rule in rules {
            match rule {
                Rule::Path(path) => {
                    let trimmed = path.trim_matches('/');
                    if trimmed.is_empty() || trimmed.split('/').any(|c| matches!(c, "" | "." | "..")) {
                        return Err(ExcludeError {
                            expression: path.clone(),
                            reason: "a path below the replicated directory is needed".into(),
                        });
                    }
                    this.paths.push(trimmed.as_bytes().to_vec());
                }
                Rule::Regex(text) => {
                    let (list, body) = match text.strip_prefix('!') {
                        Some(body) => (&mut this.only, body),
                        None => (&mut this.out, text.as_str()),
                    };
                    let regex = regex::bytes::RegexBuilder::new(body)
                        .unicode(false)
                        .size_limit(1 << 20)
                        .build()
                        .map_err(|e| ExcludeError { expression: text.clone(), reason: e.to_string() })?;
                    list.push(Pattern { regex, whole_path: body.contains('/') });
                }
            }
        }
        Ok(this)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.out.is_empty() && self.only.is_empty()
    }

    /// Whether the entry at `path` (relative) is not replicated. `directory`: what the entry itself is.
    pub fn is_excluded(&self, path: &[u8], directory: bool) -> bool {
        if self.is_empty() || path.is_empty() {
            return false;
        }
        if self
            .paths
            .iter()
            .any(|p| path.strip_prefix(p.as_slice()).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/')))
        {
            return true;
        }
        let mut start = 0;
        loop {
            let end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |at| start + at);
            let (so_far, name) = (&path[..end], &path[start..end]);
            if self.out.iter().any(|p| p.matches(so_far, name)) {
                return true;
            }
            if end == path.len() {
                return !directory && !self.only.is_empty() && !self.only.iter().any(|p| p.matches(so_far, name));
            }
            start = end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Exclude {
        let rules: Vec<Rule> = texts
            .iter()
            .map(|t| match t.strip_prefix("path:") {
                Some(p) => Rule::Path(p.into()),
                None => Rule::Regex((*t).into()),
            })
            .collect();
        Exclude::new(&rules).unwrap()
    }

    #[test]
    fn table() {
        for (texts, path, directory, excluded) in [
            (&[][..], "a", false, false),
            (&["path:log"], "log", true, true),
            (&["path:log"], "log/x/y", false, true),
            (&["path:log"], "logs", false, false),
            (&["path:/a/b/"], "a/b/c", false, true),
            (&[r".*\.log$"], "d/x.log", false, true),
            (&[r".*\.log$"], "d/x.log.1", false, false),
            (&[r"^tmp$"], "a/tmp/x", false, true),
            (&[r"^a/tmp"], "a/tmp/x", false, true),
            (&[r"^a/tmp"], "b/a/tmp", false, false),
            (&[r"!.*\.db$"], "d/x.db", false, false),
            (&[r"!.*\.db$"], "d/x.txt", false, true),
            (&[r"!.*\.db$"], "d", true, false),
            (&[r"!\.db$", r"!\.txt$", "^old"], "d/old.db", false, true),
            (&[r"!\.db$", r"!\.txt$"], "d/x.txt", false, false),
        ] {
            assert_eq!(rules(texts).is_excluded(path.as_bytes(), directory), excluded, "{texts:?} {path}");
        }
        assert!(Exclude::new(&[Rule::Regex("(".into())]).is_err());
        assert!(Exclude::new(&[Rule::Path("../x".into())]).is_err());
        assert!(Exclude::new(&[Rule::Regex("(a{1000}){1000}".into())]).is_err());
    }
}
