//! What would a shell run of a line: its commands, each as words?

/// The simple commands of a line. Redirections, comments and what is within quotes are not looked at.
pub fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut to_a_file = false;
    let mut letters = line.chars().peekable();
    let end = |word: &mut Option<String>, to_a_file: &mut bool, commands: &mut Vec<Vec<String>>| {
        if let Some(word) = word.take()
            && !std::mem::take(to_a_file)
            && let Some(last) = commands.last_mut()
        {
            last.push(word);
        }
    };
    while let Some(letter) = letters.next() {
        match letter {
            '\'' | '"' => {
                let quoted: String = letters.by_ref().take_while(|c| *c != letter).collect();
                word.get_or_insert_default().push_str(&quoted);
            }
            '#' if word.is_none() => break,
            // Alternatives, as in on|off.
            '|' if word.is_some() && letters.peek().is_some_and(|c| c.is_alphanumeric()) => {
                word.get_or_insert_default().push('|');
            }
            '<' | '>' => {
                // The number before it is a descriptor.
                word.take_if(|w| w.chars().all(|c| c.is_ascii_digit()));
                end(&mut word, &mut to_a_file, &mut commands);
                while letters.next_if(|c| ['<', '>', '&'].contains(c)).is_some() {}
                to_a_file = true;
            }
            ';' | '&' | '|' | '(' | ')' | '\n' => {
                // What a command is put in place of.
                word = word.map(|w| w.trim_end_matches('$').to_owned()).filter(|w| !w.is_empty());
                end(&mut word, &mut to_a_file, &mut commands);
                to_a_file = false;
                commands.push(Vec::new());
            }
            c if c.is_whitespace() => end(&mut word, &mut to_a_file, &mut commands),
            c => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut to_a_file, &mut commands);
    commands.retain(|c| !c.is_empty());
    commands
}

/// Every line that alternatives, as in `on|off`, stand for.
pub fn alternatives(words: &[String]) -> Vec<Vec<String>> {
    let mut lines = vec![Vec::new()];
    for word in words {
        let choices = word.split('|');
        lines = lines
            .iter()
            .flat_map(|line: &Vec<String>| choices.clone().map(move |c| [line.as_slice(), &[c.to_owned()]].concat()))
            .collect();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_a_shell_does() {
        for (line, seen) in [
            ("a -b 'c d'  # no", "a,-b,c d"),
            ("a && b | c >f 2>&1; d <x &", "a;b;c;d"),
            ("x=$(a b) \"c\"", "x=;a,b;c"),
            ("a on|off", "a,on|off"),
        ] {
            let split: Vec<String> = split(line).iter().map(|words| words.join(",")).collect();
            assert_eq!(split.join(";"), seen, "{line}");
        }
        let words = ["a", "b|c", "d|e"].map(str::to_owned);
        let lines: Vec<String> = alternatives(&words).iter().map(|words| words.join(" ")).collect();
        assert_eq!(lines, ["a b d", "a b e", "a c d", "a c e"]);
    }
}
