//! Words that the shell and Slurm take as they are meant.

/// `word` as one word of a shell.
pub fn shell(word: &str) -> String {
    if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// `value` in a line `#SBATCH --option=value`. Slurm splits it at spaces and ends it at `#`, but not between double quotes,
/// where `\"` and `\\` stand for themselves; a backslash before a space does not help.
pub fn directive(value: &str) -> String {
    if is_plain(value) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', r"\\").replace('"', r#"\""#))
    }
}

/// A path in `--output`, where `%j` and its like are replaced.
pub fn output_path(path: &str) -> String {
    directive(&path.replace('%', "%%"))
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_shell_reads_back_every_word() {
        let words = [
            "plain",
            "",
            "two words",
            "it's",
            r#"a "quoted" word"#,
            "$HOME `id` $(id)",
            r"back\slash",
            "*",
            "~",
            "a\nb",
            "#no",
            "ünï",
            "a=b;c&d|e>f",
        ];
        let line: Vec<String> = words.iter().map(|word| shell(word)).collect();
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(r"printf '%s\0' {}", line.join(" ")))
            .output()
            .expect("there is a shell");
        let text = String::from_utf8(output.stdout).expect("as it went in");
        let read: Vec<&str> = text.split_terminator('\0').collect();
        assert_eq!(read, words);
    }

    #[test]
    fn directives_escape_what_slurm_would_read() {
        assert_eq!(directive("/data/runs-1"), "/data/runs-1");
        assert_eq!(directive(r#"a b"c'd#e\f"#), r##""a b\"c'd#e\\f""##);
        assert_eq!(output_path("/50 %j"), r#""/50 %%j""#);
    }
}
