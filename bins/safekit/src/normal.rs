//! In which order may arguments come? SafeKit takes options before and after the verb; clap wants the verb first. Pure.

/// Options with a value that may stand before the verb.
const WITH_VALUE: [&str; 7] = ["-m", "-i", "-r", "-v", "-s", "-l", "--module"];
/// Verbs whose words are a message, even when they begin with a dash.
const MESSAGES: [&str; 3] = ["printi", "printe", "printw"];

/// Puts the verb first: `-m AM stop -i me` becomes `stop -m AM -i me`. `-p` and `-r CMD ARGS` become the verbs `print` and
/// `run`; what follows `-r CMD` is left alone.
pub fn normalise(arguments: Vec<String>) -> Vec<String> {
    let mut leading: Vec<String> = Vec::new();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-p" => return [vec!["print".to_owned()], leading, rest.collect()].concat(),
            "-r" => return [vec!["run".to_owned()], leading, vec!["--".to_owned()], rest.collect()].concat(),
            option if WITH_VALUE.contains(&option) => {
                leading.push(argument);
                leading.extend(rest.next());
            }
            option if option.starts_with('-') => leading.push(argument),
            verb if MESSAGES.contains(&verb) => {
                let tail = [leading, rest.collect()].concat();
                return message(argument, tail);
            }
            "kill" => {
                // SafeKit writes these options with one dash.
                let long = |word: String| {
                    let known = ["-name", "-argregex", "-level"]
                        .iter()
                        .any(|o| word.strip_prefix(o).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')));
                    if known { format!("-{word}") } else { word }
                };
                return [vec![argument], leading, rest.map(long).collect()].concat();
            }
            _ => return [vec![argument], leading, rest.collect()].concat(),
        }
    }
    leading
}

/// Separates the options of a message verb from its words.
fn message(verb: String, tail: Vec<String>) -> Vec<String> {
    let mut options = vec![verb];
    let mut words = Vec::new();
    let mut tail = tail.into_iter();
    while let Some(argument) = tail.next() {
        match argument.as_str() {
            "-m" | "-i" if words.is_empty() || tail.len() == 1 => {
                options.push(argument);
                options.extend(tail.next());
            }
            "-h" | "--help" if words.is_empty() && tail.len() == 0 => options.push(argument),
            "--" if words.is_empty() => words.extend(tail.by_ref()),
            _ => words.push(argument),
        }
    }
    if !words.is_empty() {
        options.push("--".to_owned());
        options.extend(words);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> String {
        normalise(text.split_whitespace().map(str::to_owned).collect()).join(" ")
    }

    #[test]
    fn the_verb_comes_first_wherever_it_was() {
        for (typed, meant) in [
            ("stop -m AM", "stop -m AM"),
            ("-m AM stop -i me", "stop -m AM -i me"),
            ("-i me -m AM restart", "restart -i me -m AM"),
            ("-p", "print"),
            ("-m AM -p", "print -m AM"),
            ("-r boundcmd 5 sleep -m 9", "run -- boundcmd 5 sleep -m 9"),
            ("-m AM -r processtree list", "run -m AM -- processtree list"),
            ("get -r custom.x -m AM", "get -r custom.x -m AM"),
            ("kill -name=x -argregex=a.*b -level=test", "kill --name=x --argregex=a.*b --level=test"),
            ("-m AM kill -name x -level 9", "kill -m AM --name x --level 9"),
            ("-m AM", "-m AM"),
            ("--help", "--help"),
            ("", ""),
        ] {
            assert_eq!(normal(typed), meant, "{typed}");
        }
    }

    #[test]
    fn a_message_may_look_like_options() {
        for (typed, meant) in [
            ("printe hello", "printe -- hello"),
            ("printe -m AM -- dashes", "printe -m AM -- dashes"),
            ("printe -m AM -5 rows", "printe -m AM -- -5 rows"),
            ("-m AM printi rm -rf x", "printi -m AM -- rm -rf x"),
            ("printw text -m AM", "printw -m AM -- text"),
            ("printw grep -m 5 file", "printw -- grep -m 5 file"),
            ("printe --help", "printe --help"),
        ] {
            assert_eq!(normal(typed), meant, "{typed}");
        }
    }

    proptest! {
        #[test]
        fn no_argument_is_lost(arguments in proptest::collection::vec("-m|-i|-r|-p|stop|printe|x|--", 0..8)) {
            let count = |list: &[String], word: &str| list.iter().filter(|a| *a == word).count();
            let normal = normalise(arguments.clone());
            for word in ["stop", "x", "-m", "-i"] {
                prop_assert_eq!(count(&normal, word), count(&arguments, word));
            }
        }
    }
}
