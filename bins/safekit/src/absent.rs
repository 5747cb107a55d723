//! Documented verbs that are not here: why, and what does it instead? And a table of all documented forms.

/// Why a verb is not here, and the way to what it was for. None: it was never documented.
pub fn reason(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "webservercfg" => {
            "there is no web service: other nodes are reached with keys (sk-cluster role), load balancers ask sk-health"
        }
        "uninstall" => "the product is removed by the package manager that installed it",
        "genkey" | "delkey" => "the key belongs to the cluster: safekit cluster genkey renews it on all nodes",
        "install" | "package" => "packages of modules: safekit module install|package -m AM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{command, tests::parsed_verb};
    use crate::elsewhere;
    use crate::normal::normalise;

    /// What becomes of a documented form.
    enum Here {
        /// The verb of this program that it is.
        Verb(&'static str),
        /// It goes to `sk-cluster`.
        Cluster,
        /// Refused with a reason that has this word in it.
        Refused(&'static str),
    }
    use Here::{Cluster, Refused, Verb};

    /// Every form of the documented command line, but for `module …` and the special commands (`-r`).
    const DOCUMENTED: &[(&str, Here)] = &[
        ("-p", Verb("print")),
        ("-r boundcmd 5 true", Verb("run")),
        ("-H * state", Cluster),
        ("-H node1,node2 -E AM", Cluster),
        ("-H * -G", Cluster),
        ("-H [https],a,b level", Cluster),
        ("start -m AM", Verb("start")),
        ("prim -m AM", Verb("prim")),
        ("prim fullsync -m AM", Verb("prim")),
        ("second -m AM", Verb("second")),
        ("second fullsync -m AM", Verb("second")),
        ("primforce -m AM", Verb("primforce")),
        ("secondforce -d 2026-01-01 -m AM", Verb("secondforce")),
        ("stop -m AM", Verb("stop")),
        ("stop -i me -m AM", Verb("stop")),
        ("forcestop -m AM", Verb("forcestop")),
        ("shutdown", Verb("shutdown")),
        ("restart -m AM -i me", Verb("restart")),
        ("stopstart -m AM -i me", Verb("stopstart")),
        ("swap -m AM", Verb("swap")),
        ("swap nosync -m AM", Verb("swap")),
        ("rfsverify -m AM", Verb("rfsverify")),
        ("rfsdiff -m AM", Verb("rfsdiff")),
        ("rfssync -m AM", Verb("rfssync")),
        ("rfssync full -m AM", Verb("rfssync")),
        ("rfssync external prim uid1 -m AM", Verb("rfssync")),
        ("rfssync external second uid1 -m AM", Verb("rfssync")),
        ("rfssync -d prim uid1 -m AM", Verb("rfssync")),
        ("waitstart -m AM", Verb("waitstart")),
        ("waitstop -m AM", Verb("waitstop")),
        ("waitstate -m AM PRIM", Verb("waitstate")),
        ("update -m AM", Verb("update")),
        ("get -m AM -r custom.x", Verb("get")),
        ("set -m AM -r custom.x -v up", Verb("set")),
        ("set -m AM -r custom.x -v up -n -i me", Verb("set")),
        ("set -m AM -r custom.x -v up -l", Verb("set")),
        ("errd on -m AM", Verb("errd")),
        ("errd off -m AM", Verb("errd")),
        ("errd list -m AM", Verb("errd")),
        ("errd enable class -m AM", Verb("errd")),
        ("errd disable class -m AM", Verb("errd")),
        ("checker on -m AM", Verb("checker")),
        ("failover off -m AM", Verb("failover")),
        ("boot on -m AM", Verb("boot")),
        ("boot status", Verb("boot")),
        ("kill -name x -argregex y -level test", Verb("kill")),
        ("incloop -i me -m AM", Verb("incloop")),
        ("resetloop -i me -m AM", Verb("resetloop")),
        ("checkloop -m AM", Verb("checkloop")),
        ("cluster config /tmp/cluster.xml lock", Cluster),
        ("cluster confcheck /tmp/cluster.xml", Cluster),
        ("cluster confinfo", Cluster),
        ("cluster state", Cluster),
        ("cluster deconfig", Cluster),
        ("cluster genkey", Cluster),
        ("cluster delkey", Refused("encrypted")),
        ("cluster create 10.0.0.1 10.0.0.2", Cluster),
        ("module list", Verb("module")),
        ("module listid", Verb("module")),
        ("config -m AM", Verb("config")),
        ("deconfig -m AM", Verb("deconfig")),
        ("confcheck -m AM", Verb("confcheck")),
        ("confinfo -m AM", Verb("confinfo")),
        ("level -m AM", Verb("level")),
        ("state", Verb("state")),
        ("state -m AM -v", Verb("state")),
        ("state -m AM -lq", Verb("state")),
        ("log -m AM -s 300 -A -l fr", Verb("log")),
        ("logview -m AM -s 10 -A", Verb("logview")),
        ("logsave -m AM -A -l ja /tmp/log", Verb("logsave")),
        ("cmdlog", Verb("cmdlog")),
        ("snapshot -m AM /tmp/file.tar.gz", Verb("snapshot")),
        ("-r healthcheck.sh", Verb("run")),
        ("-r anontool anonymize-snapshot /tmp/s.tar.gz", Verb("run")),
        ("printi -m AM words", Verb("printi")),
        ("printe -m AM words", Verb("printe")),
        ("webserver restart", Verb("webserver")),
        ("webservercfg -passwd P", Refused("no web service")),
        ("boot webon", Verb("boot")),
        ("boot webstatus", Verb("boot")),
        ("notification enable", Verb("notification")),
        ("notification status", Verb("notification")),
        ("uninstall -all", Refused("package manager")),
        ("dump -m AM", Verb("dump")),
        ("clean -m AM", Verb("clean")),
        ("clean resource -m AM", Verb("clean")),
        ("module getports -m AM", Verb("module")),
        ("module getports -i 1", Verb("module")),
        ("module genkey -m AM", Verb("module")),
        ("module delkey -m AM", Verb("module")),
    ];

    #[test]
    fn every_documented_form_is_here_or_refused_with_a_reason() {
        command().debug_assert();
        for (form, here) in DOCUMENTED {
            let words: Vec<String> = form.split_whitespace().map(str::to_owned).collect();
            if let Some(translated) = elsewhere::translate(&words) {
                assert!(matches!(here, Cluster) && translated.is_ok(), "{form}");
                continue;
            }
            let parsed = parsed_verb(normalise(words.clone()));
            match (here, parsed) {
                (Verb(verb), Ok(Some(got))) => assert_eq!(got, *verb, "{form}"),
                (Cluster, Ok(Some(got))) => {
                    assert!(got == "cluster" && elsewhere::cluster(&words[1..]).is_ok(), "{form}");
                }
                (Refused(word), Ok(Some(got))) => {
                    assert!(got == "cluster", "{form} is {got}");
                    assert!(elsewhere::cluster(&words[1..]).unwrap_err().to_string().contains(word), "{form}");
                }
                // Not a verb of this program.
                (Refused(word), Ok(None)) => {
                    assert!(reason(&words[0]).is_some_and(|r| r.contains(word)), "{form} is refused without {word:?}");
                }
                _ => panic!("{form}"),
            }
        }
    }
}
