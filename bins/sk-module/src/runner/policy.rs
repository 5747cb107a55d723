//! How the secondary is synchronised next, as resources: read from the file that `sk-replicate policy` and the engine write.

use super::Runner;
use serde_json::Value;

/// The file's size is bounded like every input's.
const LIMIT: u64 = 4096;

impl Runner {
    /// `usersetting.rfssyncmode`, `rfssyncrole`, `rfssyncuid`, and whether that can be carried out: `rfs.rfssync`.
    pub(super) fn show_policy(&mut self) {
        if self.instance.config.rfs.is_none() {
            return;
        }
        let path = self.instance.roots.module_var(&self.instance.module).join("replica/policy.json");
        let read = sys::files::read_bounded(&path, LIMIT).ok();
        let policy: Value = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null);
        for (name, value) in resources(&policy, self.persisted.full_wanted) {
            self.facts.assign(name, &value);
        }
    }
}

/// `full_wanted`: by `prim fullsync` or `primforce`.
fn resources(policy: &Value, full_wanted: bool) -> [(&'static str, String); 4] {
    let text = |name: &str, absent: &str| policy[name].as_str().unwrap_or(absent).to_owned();
    let mode = text("mode", if full_wanted { "full" } else { "default" });
    // A mark without a moment gets one when its node serves.
    let refused = policy["refused"].as_bool() == Some(true);
    [
        ("usersetting.rfssyncmode", mode),
        ("usersetting.rfssyncrole", text("role", "default")),
        ("usersetting.rfssyncuid", text("uid", "default")),
        ("rfs.rfssync", if refused { "down" } else { "up" }.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_as_resources() {
        let words = |policy: Value, full| resources(&policy, full).map(|(_, value)| value);
        assert_eq!(words(Value::Null, false), ["default", "default", "default", "up"]);
        assert_eq!(words(Value::Null, true), ["full", "default", "default", "up"]);
        assert_eq!(words(json!({"mode": "full"}), false), ["full", "default", "default", "up"]);
        let mark = json!({"mode": "external", "role": "second", "uid": "t1", "since": null, "refused": true});
        assert_eq!(words(mark, false), ["external", "second", "t1", "down"]);
    }
}
