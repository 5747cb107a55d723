//! How does text for people fit a terminal of 80 columns?

/// Width that every terminal has.
pub const COLUMNS: usize = 80;

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A line that goes on below itself, `indent` columns further right, where it is too wide. It breaks at blanks: a word that is too wide
/// by itself stays whole, so that paths can be copied. Text that fits is left as it is.
pub fn wrap(text: &str, indent: usize) -> String {
    if width(text) <= COLUMNS {
        return text.to_owned();
    }
    let (mut out, mut column, mut blanks, mut is_fresh) = (String::new(), 0, 0, true);
    for (number, word) in text.split(' ').enumerate() {
        blanks += usize::from(number > 0);
        if word.is_empty() {
            continue;
        }
        if !is_fresh && column + blanks + width(word) > COLUMNS {
            out.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else {
            out.push_str(&" ".repeat(blanks));
            column += blanks;
        }
        out.push_str(word);
        column += width(word);
        (blanks, is_fresh) = (0, false);
    }
    out
}

/// Parts of a line with ` | ` between them. What does not fit goes on below, from the beginning of a part where possible.
pub fn bar(parts: &[String]) -> String {
    const INDENT: usize = 2;
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            None => lines.push(part.clone()),
            Some(line) if width(line) + 3 + width(part) <= COLUMNS => *line = format!("{line} | {part}"),
            Some(_) => lines.push(format!("{:INDENT$}| {part}", "")),
        }
    }
    lines.iter().map(|line| wrap(line, 2 * INDENT)).collect::<Vec<_>>().join("\n")
}

/// Columns padded to their longest cell, two blanks apart. Columns that do not fit go on below their row, indented.
pub fn table<Row: AsRef<[String]>>(rows: &[Row]) -> Vec<String> {
    const INDENT: usize = 4;
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.as_ref().get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..count).map(|column| widest(column).unwrap_or(0)).collect();
    // Which columns stand on which line of a row.
    let (mut chunks, mut from, mut used) = (Vec::new(), 0, 0);
    for (column, wide) in widths.iter().enumerate() {
        if column > from && used + 2 + wide > COLUMNS {
            chunks.push(from..column);
            (from, used) = (column, INDENT + wide);
        } else {
            used += wide + if column == from { 0 } else { 2 };
        }
    }
    chunks.push(from..count);
    let mut lines = Vec::new();
    for row in rows {
        for chunk in &chunks {
            let cells: Vec<String> = chunk
                .clone()
                .filter_map(|column| Some((row.as_ref().get(column)?, widths.get(column)?)))
                .map(|(cell, wide)| format!("{cell:wide$}"))
                .collect();
            let indent = if chunk.start == 0 { 0 } else { INDENT };
            let line = format!("{:indent$}{}", "", cells.join("  "));
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below() {
        let short = format!("  {}", "x".repeat(78));
        assert_eq!(wrap(&short, 4), short);
        assert_eq!(wrap("", 4), "");
        let (a, b) = ("a".repeat(40), "b".repeat(36));
        assert_eq!(wrap(&format!("  - {a} {b} end"), 4), format!("  - {a}\n    {b} end"));
        // Blanks that align columns stay; a word that is too wide stays whole.
        let path = format!("/{}", "p".repeat(90));
        assert_eq!(wrap(&format!("name     {path} t"), 2), format!("name\n  {path}\n  t"));
        // Characters, not bytes.
        let letters = "é".repeat(80);
        assert_eq!(wrap(&letters, 2), letters);
    }

    #[test]
    fn a_bar_breaks_between_its_parts() {
        let parts = |list: &[&str]| list.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(bar(&parts(&["a", "b", "c"])), "a | b | c");
        assert_eq!(bar(&[]), "");
        let (first, second) = ("f".repeat(50), "s".repeat(40));
        assert_eq!(bar(&parts(&[&first, &second, "t"])), format!("{first}\n  | {second} | t"));
        let nodes = (1..=32).map(|n| format!("server-{n}")).collect::<Vec<_>>().join(" ");
        let said = bar(&parts(&["web: UP (Ready)", &format!("open {nodes} of {nodes}")]));
        assert!(said.starts_with("web: UP (Ready)\n  | open server-1 "), "{said}");
        assert!(said.lines().all(|line| width(line) <= COLUMNS), "{said}");
        assert_eq!(said.split_whitespace().filter(|word| word.starts_with("server-")).count(), 64);
    }

    #[test]
    fn columns_that_do_not_fit_go_on_below_their_row() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        assert_eq!(table(&[row(["A", "B", "C"]), row(["long", "x", "y"])]), ["A     B  C", "long  x  y"]);
        let (name, address) = ("n".repeat(50), "a".repeat(43));
        let said = table(&[row(["NAME", "ADDRESS", "STATE"]), row([&name, &address, "up"])]);
        let wide = format!("    {:43}  STATE", "ADDRESS");
        assert_eq!(said, ["NAME".to_owned(), wide, name, format!("    {address}  up")]);
        assert!(table::<[String; 0]>(&[]).is_empty());
        // Rows may be shorter than others.
        assert_eq!(table(&[vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]]), ["a", "b  c"]);
    }
}
