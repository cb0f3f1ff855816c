//! Reads shell commands as the documents show them. It understands quotes and comments, and runs
//! nothing.

/// Commands joined by `|`.
pub struct Pipeline {
    /// As it stands, without a comment behind it.
    pub text: String,
    /// The words of each command, without their quotes.
    pub commands: Vec<Vec<String>>,
}

impl Pipeline {
    /// The program that each command starts.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().map(|words| program(words).1)
    }

    /// The arguments of each coracle that it starts, itself or through another program: `ssh pi
    /// coracle list`.
    pub fn calls_of_coracle(&self, subcommands: &[String]) -> Vec<&[String]> {
        let mut calls = Vec::new();
        for words in &self.commands {
            let (first, _) = program(words);
            for (n, word) in words.iter().enumerate().skip(first) {
                let is_followed = words.get(n + 1).is_some_and(|it| subcommands.contains(it));
                let is_named = word == "coracle" && n == first;
                if is_named || (is_followed && word.rsplit('/').next() == Some("coracle")) {
                    calls.push(&words[n + 1..]);
                }
            }
        }
        calls
    }
}

/// The program of a command and its place, behind assignments and what only starts another program.
fn program(words: &[String]) -> (usize, &str) {
    let is_before = |word: &String| word == "sudo" || word == "exec" || word.contains('=');
    let n = words.iter().take_while(|word| is_before(word)).count();
    let word = words
        .get(n)
        .unwrap_or_else(|| panic!("{words:?} starts no program"));
    (n, word)
}

/// The pipelines of a block, in which `$ ` begins each command if one line does.
pub fn pipelines(block: &str) -> Vec<Pipeline> {
    let has_prompt = |line: &str| line.starts_with("$ ");
    let lines = block.lines();
    let script = if block.lines().any(has_prompt) {
        let commands = lines.filter_map(|line| line.strip_prefix("$ "));
        commands.collect::<Vec<_>>().join("\n")
    } else {
        lines.collect::<Vec<_>>().join("\n")
    };
    Reader::default().read(&script.replace("\\\n", " "))
}

#[derive(Default)]
struct Reader {
    pipelines: Vec<Pipeline>,
    text: String,
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    /// The word that is being read, if one has begun.
    word: Option<String>,
}

impl Reader {
    fn read(mut self, script: &str) -> Vec<Pipeline> {
        let mut quote = None;
        let mut comment = false;
        let mut rest = script.chars().peekable();
        while let Some(c) = rest.next() {
            if comment && c != '\n' {
                continue;
            }
            comment = false;
            let begins_word = self.word.is_none() && quote.is_none();
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(c);
                    self.word.get_or_insert_default();
                }
                (None, '#') if begins_word => {
                    comment = true;
                    continue;
                }
                (None, '&' | '|') if rest.next_if_eq(&c).is_some() => {
                    self.end_pipeline();
                    continue;
                }
                (None, '\n' | ';') => {
                    self.end_pipeline();
                    continue;
                }
                (None, '|') => self.end_command(),
                (None, ' ') => self.end_word(),
                (None, '&' | '<' | '>' | '\\') => panic!("the tests do not know {c} in:\n{script}"),
                _ => self.word.get_or_insert_default().push(c),
            }
            self.text.push(c);
        }
        assert!(quote.is_none(), "a quote stays open in:\n{script}");
        self.end_pipeline();
        self.pipelines
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        self.commands.push(std::mem::take(&mut self.words));
    }

    fn end_pipeline(&mut self) {
        self.end_word();
        let text = std::mem::take(&mut self.text);
        if self.words.is_empty() && self.commands.is_empty() {
            return;
        }
        self.end_command();
        self.pipelines.push(Pipeline {
            text: text.trim().to_owned(),
            commands: std::mem::take(&mut self.commands),
        });
    }
}
