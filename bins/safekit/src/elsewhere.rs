//! What concerns other hosts: `safekit -H HOSTS …` and `safekit cluster …`, in the words of `sk-cluster`.

use crate::cli::Failure;
use crate::verbs::become_program;
use sys::roots::Roots;

/// `-H HOSTS …` as a command line of `sk-cluster`. None: the hosts are not named, it is for this one.
pub fn translate(arguments: &[String]) -> Option<Result<Vec<String>, Failure>> {
    let first = arguments.first()?;
    let (hosts, rest) = match first.strip_prefix("-H")? {
        "" => match arguments.get(1) {
            Some(hosts) => (hosts.clone(), arguments.get(2..).unwrap_or_default()),
            None => {
                return Some(Err(Failure::usage("-H needs hosts: safekit -H \"*\" VERB, or -H \"node1,node2\" VERB")));
            }
        },
        hosts => (hosts.to_owned(), arguments.get(1..).unwrap_or_default()),
    };
    Some(words(&hosts, rest))
}

fn words(hosts: &str, rest: &[String]) -> Result<Vec<String>, Failure> {
    let line = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    // The guide writes `safekit config -H … -E AM` in some places; what counts are the options.
    match rest {
        [] => {
            Err(Failure::usage("nothing is asked of the hosts: safekit -H HOSTS VERB, -H HOSTS -E AM, or -H HOSTS -G"))
        }
        [option] if option == "-G" => Ok(line(&["push", "-H", hosts])),
        [option, module] if option == "-E" => Ok(line(&["push", "-H", hosts, "-m", module])),
        [option, ..] if matches!(option.as_str(), "-G" | "-E") => {
            Err(Failure::usage(format!("{option} stands alone: safekit -H HOSTS -G, or safekit -H HOSTS -E AM")))
        }
        _ => Ok([line(&["on", hosts, "safekit"]), rest.to_vec()].concat()),
    }
}

/// `safekit cluster …` as a command line of `sk-cluster`.
pub fn cluster(words: &[String]) -> Result<Vec<String>, Failure> {
    let (verb, rest) = words.split_first().map_or(("", words), |(v, r)| (v.as_str(), r));
    let with = |first: &[&str]| Ok([first.iter().map(|w| (*w).to_owned()).collect(), rest.to_vec()].concat());
    match verb {
        "config" | "confcheck" | "confinfo" | "deconfig" | "state" | "--help" | "-h" => with(&[verb]),
        // The undocumented form takes addresses and names the nodes itself.
        "create" => {
            let nodes = rest.iter().enumerate().map(|(number, node)| {
                if node.contains('=') || node.starts_with('-') {
                    node.clone()
                } else {
                    format!("server{number}={node}")
                }
            });
            Ok(std::iter::once("create".to_owned()).chain(nodes).collect())
        }
        // On all nodes at once, and nothing stops.
        "genkey" => with(&["key", "renew"]),
        "delkey" => Err(Failure::usage(
            "there is no cluster without a key: everything between nodes is encrypted; `safekit cluster genkey` gives all nodes a new one",
        )),
        other => Err(Failure::usage(format!(
            "cluster has no verb {other:?}: config, confcheck, confinfo, deconfig, state, create, genkey, delkey"
        ))),
    }
}

/// Becomes `sk-cluster WORDS`.
pub fn become_cluster(roots: &Roots, words: &[String]) -> Result<u8, Failure> {
    become_program(roots, "sk-cluster", words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_for_other_hosts_become_those_of_sk_cluster() {
        for (typed, meant) in [
            ("-H * state", "on * safekit state"),
            ("-H node1,node2 prim -m AM", "on node1,node2 safekit prim -m AM"),
            ("-Hnode1 level", "on node1 safekit level"),
            ("-H * -G", "push -H *"),
            ("-H node2 -E AM", "push -H node2 -m AM"),
            ("-H [http:9500],a,b -m AM state -lq", "on [http:9500],a,b safekit -m AM state -lq"),
        ] {
            assert_eq!(translate(&split(typed)).unwrap().unwrap().join(" "), meant, "{typed}");
        }
        for bad in ["-H", "-H *", "-H * -G x", "-H * -E", "-H * -E a b"] {
            assert!(translate(&split(bad)).unwrap().is_err(), "{bad}");
        }
        assert!(translate(&split("state -H x")).is_none() && translate(&[]).is_none());
    }

    #[test]
    fn the_verbs_of_the_cluster_are_there_or_refused_with_a_reason() {
        for (typed, meant) in [
            ("config /tmp/c.xml lock", "config /tmp/c.xml lock"),
            ("confinfo", "confinfo"),
            ("genkey", "key renew"),
            ("create 10.0.0.1 10.0.0.2", "create server0=10.0.0.1 server1=10.0.0.2"),
        ] {
            assert_eq!(cluster(&split(typed)).unwrap().join(" "), meant, "{typed}");
        }
        assert!(cluster(&split("delkey")).unwrap_err().to_string().contains("genkey"));
        assert!(cluster(&split("explode")).is_err());
    }
}
