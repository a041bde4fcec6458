//! Reading templates.

use serde_json::Value;

use super::{Node, Operand, Operator, Slice, Step};

/// How deep `{range}` may be nested.
const DEEPEST: usize = 32;

pub(super) fn template(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { rest: text };
    let nodes = parser.nodes(0)?;
    Ok(nodes)
}

struct Parser<'t> {
    rest: &'t str,
}

/// What stands between two braces.
enum Action {
    Nodes(Vec<Node>),
    Range(Vec<Step>),
    End,
}

impl<'t> Parser<'t> {
    fn nodes(&mut self, depth: usize) -> Result<Vec<Node>, String> {
        if depth > DEEPEST {
            return Err("too many nested ranges".to_owned());
        }
        let mut nodes = Vec::new();
        loop {
            let (text, rest) = self.rest.split_once('{').unwrap_or((self.rest, ""));
            if !text.is_empty() {
                nodes.push(Node::Text(text.to_owned()));
            }
            if self.rest.len() == text.len() {
                return match depth {
                    0 => Ok(nodes),
                    _ => Err("unclosed range: {end} is missing".to_owned()),
                };
            }
            self.rest = rest;
            match self.action()? {
                Action::Nodes(more) => nodes.extend(more),
                Action::Range(steps) => nodes.push(Node::Range(steps, self.nodes(depth + 1)?)),
                Action::End if depth > 0 => return Ok(nodes),
                Action::End => return Err("not in range, nothing to end".to_owned()),
            }
        }
    }

    fn action(&mut self) -> Result<Action, String> {
        let mut nodes = Vec::new();
        loop {
            self.skip_space();
            if self.take("}") {
                return Ok(Action::Nodes(nodes));
            }
            if nodes.is_empty() {
                if self.word("range") {
                    let steps = self.steps()?;
                    self.close()?;
                    return Ok(Action::Range(steps));
                }
                if self.word("end") {
                    self.close()?;
                    return Ok(Action::End);
                }
            }
            match self.rest.chars().next() {
                None => return Err("unclosed action".to_owned()),
                Some('"' | '\'') => nodes.push(Node::Text(self.quoted()?)),
                Some(_) => nodes.push(Node::Path(self.steps()?)),
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        self.skip_space();
        if self.take("}") {
            return Ok(());
        }
        Err("unclosed action".to_owned())
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        let begin = self.rest.len();
        self.skip_space();
        if self.take("$") {
            steps.push(Step::Root);
        } else {
            // The present value is where a path begins anyway.
            self.take("@");
        }
        loop {
            self.skip_space();
            if self.take("..") {
                steps.push(Step::Descend);
                if !self.rest.starts_with(['*', '[']) {
                    steps.push(Step::Field(self.name()?));
                } else if self.take("*") {
                    steps.push(Step::All);
                }
            } else if self.take(".") {
                match self.rest.chars().next() {
                    Some('*') => {
                        self.take("*");
                        steps.push(Step::All);
                    }
                    // `{.}` is the whole value.
                    None | Some('}' | '[' | ' ' | ')') => {}
                    Some(_) => steps.push(Step::Field(self.name()?)),
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                break;
            }
        }
        if self.rest.len() == begin {
            let found = self
                .rest
                .chars()
                .next()
                .map_or("nothing".to_owned(), |c| format!("{c:?}"));
            return Err(format!("unrecognized character in action: {found}"));
        }
        Ok(steps)
    }

    /// A field's name, in which a backslash makes the next character plain.
    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, plain)| plain)),
                '.' | '[' | ']' | '{' | '}' | '(' | ')' | '=' | '!' | '<' | '>' | ',' | '"'
                | '\'' => {
                    end = at;
                    break;
                }
                space if space.is_whitespace() => {
                    end = at;
                    break;
                }
                plain => name.push(plain),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() {
            return Err("a field's name is missing".to_owned());
        }
        Ok(name)
    }

    /// What stands in brackets, after the opening one.
    fn bracket(&mut self) -> Result<Step, String> {
        self.skip_space();
        if self.take("?(") {
            let filter = self.filter()?;
            self.end_bracket()?;
            return Ok(filter);
        }
        if self.take("*") {
            self.end_bracket()?;
            return Ok(Step::All);
        }
        if self.rest.starts_with(['"', '\'']) {
            let mut names = vec![self.quoted()?];
            self.skip_space();
            while self.take(",") {
                self.skip_space();
                names.push(self.quoted()?);
                self.skip_space();
            }
            self.end_bracket()?;
            return Ok(match names.len() {
                1 => Step::Field(names.remove(0)),
                _ => Step::Fields(names),
            });
        }
        let (inside, rest) = self.rest.split_once(']').ok_or("unterminated array")?;
        self.rest = rest;
        let slices = inside.split(',').map(|part| slice(part.trim()));
        Ok(Step::Items(slices.collect::<Result<_, _>>()?))
    }

    fn end_bracket(&mut self) -> Result<(), String> {
        self.skip_space();
        if self.take("]") {
            return Ok(());
        }
        Err("unterminated array".to_owned())
    }

    fn filter(&mut self) -> Result<Step, String> {
        let left = self.operand()?;
        self.skip_space();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let operator = operators.into_iter().find(|(text, _)| self.take(text));
        let comparison = match operator {
            Some((_, operator)) => Some((operator, self.operand()?)),
            None => None,
        };
        self.skip_space();
        if self.take(")") {
            return Ok(Step::Filter(left, comparison));
        }
        Err("unterminated filter".to_owned())
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.skip_space();
        match self.rest.chars().next() {
            None => Err("unterminated filter".to_owned()),
            Some('"' | '\'') => Ok(Operand::Value(Value::String(self.quoted()?))),
            Some('@' | '$' | '.' | '[') => Ok(Operand::Path(self.steps()?)),
            Some(_) => {
                let end = self.rest.find([')', ' ', '=', '!', '<', '>']);
                let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                let value = serde_json::from_str(word);
                Ok(Operand::Value(value.map_err(|_| {
                    format!("{word:?} in a filter is neither a path nor a value: texts need quotation marks")
                })?))
            }
        }
    }

    /// A text in quotation marks of either kind.
    fn quoted(&mut self) -> Result<String, String> {
        let mut characters = self.rest.char_indices();
        let Some((_, quote @ ('"' | '\''))) = characters.next() else {
            return Err("a text in quotation marks is missing".to_owned());
        };
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next().map(|(_, next)| next) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(plain) => text.push(plain),
                    None => break,
                },
                end if end == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                plain => text.push(plain),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a word that is not only the beginning of a longer one.
    fn word(&mut self, word: &str) -> bool {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
        if self.rest.strip_prefix(word).is_some_and(ends) {
            return self.take(word);
        }
        false
    }
}

fn slice(text: &str) -> Result<Slice, String> {
    let invalid = || format!("invalid array index {text}");
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| invalid()),
    };
    let mut parts = text.split(':');
    let first = number(parts.next().unwrap_or_default())?;
    let Some(to) = parts.next() else {
        return Ok(Slice::One(first.ok_or_else(invalid)?));
    };
    let step = number(parts.next().unwrap_or_default())?.unwrap_or(1);
    if parts.next().is_some() {
        return Err(invalid());
    }
    Ok(Slice::Range {
        from: first,
        to: number(to)?,
        step: usize::try_from(step)
            .ok()
            .filter(|step| *step > 0)
            .ok_or("step must be > 0")?,
    })
}
