//! Which kernel does this host run, and is it one that the product is tested with?

/// The oldest one.
pub(crate) const OLDEST: (u32, u32) = (6, 1);

/// As it calls itself; empty when it does not say.
pub(crate) fn release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first two numbers of a release.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
