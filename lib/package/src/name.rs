//! May an entry of a package have this name, and is it part of a module? Pure.

/// Longest name of one file or directory, in bytes.
const COMPONENT_MAX: usize = 255;
const PATH_MAX: usize = 1024;
const DEPTH_MAX: usize = 16;

/// What an entry is to a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Belongs to the module, at this path from its directory.
    Part(String),
    /// The number of the module.
    Id,
    /// Something else that packages contain, such as a page for a console.
    Other(String),
}

/// Checks a name as it stands in the archive. A directory's name ends with a slash.
pub(crate) fn place(raw: &[u8]) -> Result<Place, (String, &'static str)> {
    let shown = || String::from_utf8_lossy(raw).chars().take(200).collect::<String>();
    let refuse = |reason| Err((shown(), reason));
    let Ok(name) = std::str::from_utf8(raw) else { return refuse("has a name that is not UTF-8") };
    if name.len() > PATH_MAX {
        return refuse("has a name that is too long");
    }
    if name.starts_with('/') {
        return refuse("has an absolute path");
    }
    if name.contains('\\') {
        return refuse("has a backslash in its name");
    }
    if name.chars().any(char::is_control) {
        return refuse("has a control character in its name");
    }
    let path = name.strip_suffix('/').unwrap_or(name);
    let components: Vec<&str> = path.split('/').collect();
    if components.len() > DEPTH_MAX {
        return refuse("lies too deep");
    }
    for component in &components {
        match *component {
            "" => return refuse("has an empty name in its path"),
            "." | ".." => return refuse("has . or .. in its path"),
            long if long.len() > COMPONENT_MAX => return refuse("has a name that is too long"),
            _ => {}
        }
    }
    Ok(match (components[0], components.len()) {
        ("conf" | "bin", _) | ("README.md", 1) => Place::Part(path.to_owned()),
        ("id", 1) => Place::Id,
        _ => Place::Other(path.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn names_are_taken_left_out_or_refused() {
        for (name, wanted) in [
            ("conf/userconfig.xml", Place::Part("conf/userconfig.xml".into())),
            ("bin/", Place::Part("bin".into())),
            ("bin/sub dir/ä..b", Place::Part("bin/sub dir/ä..b".into())),
            ("README.md", Place::Part("README.md".into())),
            ("id", Place::Id),
            ("manifest.xml", Place::Other("manifest.xml".into())),
            ("web/index.html", Place::Other("web/index.html".into())),
            ("id/x", Place::Other("id/x".into())),
        ] {
            assert_eq!(place(name.as_bytes()), Ok(wanted), "{name}");
        }
        for name in [
            "",
            "/",
            "/etc/passwd",
            "../x",
            "conf/../../x",
            "conf/..",
            "./conf/x",
            "conf//x",
            "conf/./x",
            "bin\\..\\x",
            "C:\\x",
            "conf/a\0b",
            "conf/a\nb",
            &"a/".repeat(17),
            &"x".repeat(256),
            &"conf/yyyyyyyyy".repeat(80),
        ] {
            assert!(place(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(place(b"conf/\xff").is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_below_the_module(raw in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'.')], 0..40),
                                                conf in any::<bool>()) {
            let raw = if conf { [b"conf/".to_vec(), raw].concat() } else { raw };
            if let Ok(Place::Part(path)) = place(&raw) {
                let all_plain = Path::new(&path).components().all(|c| matches!(c, Component::Normal(_)));
                prop_assert!(all_plain && !path.is_empty());
                prop_assert!(path.starts_with("conf") || path.starts_with("bin") || path == "README.md");
            }
        }
    }
}
