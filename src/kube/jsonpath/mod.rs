//! JSONPath templates in kubectl's dialect
//! (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>): text, and
//! expressions in braces. `{range X}…{end}` repeats what is in between for every
//! value of `X`; inside, paths begin at that value.

mod parse;

use std::cmp::Ordering;

use serde_json::Value;

/// A template that has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

/// From the values found so far to the next ones.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `$`: the whole object.
    Root,
    /// `.name`, `['name']`.
    Field(String),
    /// `.*`, `[*]`.
    All,
    /// `..`: the value, and all values in it.
    Descend,
    /// `[0]`, `[-1]`, `[1:3]`, `[::2]`, `[0,2]`.
    Items(Vec<Slice>),
    /// `['a','b.c']`.
    Fields(Vec<String>),
    /// `[?(@.x=="y")]`.
    Filter(Operand, Option<(Operator, Operand)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    One(i64),
    Range {
        from: Option<i64>,
        to: Option<i64>,
        step: usize,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a template cannot be read, or does not fit the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// It is no template.
    #[error("error parsing jsonpath {text}, {reason}")]
    Parse {
        /// The template.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An index is not in the list.
    #[error(
        "error executing jsonpath {text:?}: array index out of bounds: index {index}, length {length}"
    )]
    Bounds {
        /// The template.
        text: String,
        /// The index.
        index: i64,
        /// How long the list is.
        length: usize,
    },
}

impl Template {
    /// Reads a template: everything outside of braces is text.
    ///
    /// # Errors
    /// [`JsonPathError::Parse`].
    pub fn new(text: &str) -> Result<Self, JsonPathError> {
        let nodes = parse::template(text).map_err(|reason| JsonPathError::Parse {
            text: text.to_owned(),
            reason,
        })?;
        Ok(Self {
            text: text.to_owned(),
            nodes,
        })
    }

    /// Reads one path, as `--sort-by`, `custom-columns` and `wait` take it:
    /// `.spec.x`, `spec.x` or `{.spec.x}`.
    ///
    /// # Errors
    /// [`JsonPathError::Parse`].
    pub fn path(text: &str) -> Result<Self, JsonPathError> {
        let bare = text.trim();
        let inner = bare
            .strip_prefix('{')
            .and_then(|bare| bare.strip_suffix('}'));
        let inner = inner.unwrap_or(bare).trim();
        let dot = if inner.starts_with(['.', '[', '$', '@']) {
            ""
        } else {
            "."
        };
        let template = Self::new(&format!("{{{dot}{inner}}}"))?;
        match template.nodes.as_slice() {
            [Node::Path(_)] => Ok(template),
            _ => Err(JsonPathError::Parse {
                text: text.to_owned(),
                reason: "expected one path such as {.metadata.name}".to_owned(),
            }),
        }
    }

    /// The template, filled in from `object`. What is not there is left out.
    ///
    /// # Errors
    /// [`JsonPathError::Bounds`].
    pub fn render(&self, object: &Value) -> Result<String, JsonPathError> {
        let mut output = String::new();
        self.fill(&self.nodes, object, object, &mut output)?;
        Ok(output)
    }

    /// All values that the first path of the template finds; none where an index is
    /// beyond the end of a list.
    #[must_use]
    pub fn values<'v>(&self, object: &'v Value) -> Vec<&'v Value> {
        let steps = self.nodes.iter().find_map(|node| match node {
            Node::Path(steps) => Some(steps),
            _ => None,
        });
        let found = steps.map(|steps| self.find(steps, object, object));
        found.and_then(Result::ok).unwrap_or_default()
    }

    fn fill(
        &self,
        nodes: &[Node],
        root: &Value,
        at: &Value,
        output: &mut String,
    ) -> Result<(), JsonPathError> {
        for node in nodes {
            match node {
                Node::Text(text) => output.push_str(text),
                Node::Path(steps) => {
                    let found = self.find(steps, root, at)?;
                    let texts: Vec<String> = found.into_iter().map(text_of).collect();
                    output.push_str(&texts.join(" "));
                }
                Node::Range(steps, body) => {
                    for item in self.find(steps, root, at)? {
                        self.fill(body, root, item, output)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn find<'v>(
        &self,
        steps: &[Step],
        root: &'v Value,
        at: &'v Value,
    ) -> Result<Vec<&'v Value>, JsonPathError> {
        let mut found = vec![at];
        for step in steps {
            let mut next = Vec::new();
            for value in found {
                self.step(step, root, value, &mut next)?;
            }
            found = next;
        }
        Ok(found)
    }

    fn step<'v>(
        &self,
        step: &Step,
        root: &'v Value,
        value: &'v Value,
        next: &mut Vec<&'v Value>,
    ) -> Result<(), JsonPathError> {
        match step {
            Step::Root => next.push(root),
            Step::Field(name) => next.extend(value.get(name)),
            Step::Fields(names) => next.extend(names.iter().filter_map(|name| {
                let below = || {
                    name.split('.')
                        .try_fold(value, |value, name| value.get(name))
                };
                value.get(name).or_else(below)
            })),
            Step::All => next.extend(children(value)),
            Step::Descend => descend(value, next),
            Step::Items(slices) => {
                if let Value::Array(items) = value {
                    for slice in slices {
                        self.slice(*slice, items, next)?;
                    }
                }
            }
            Step::Filter(left, comparison) => {
                for item in children(value) {
                    if self.holds(left, comparison.as_ref(), root, item)? {
                        next.push(item);
                    }
                }
            }
        }
        Ok(())
    }

    fn slice<'v>(
        &self,
        slice: Slice,
        items: &'v [Value],
        next: &mut Vec<&'v Value>,
    ) -> Result<(), JsonPathError> {
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let from_start = |index: i64| {
            if index < 0 {
                index.saturating_add(length)
            } else {
                index
            }
        };
        match slice {
            Slice::One(index) => {
                let place = usize::try_from(from_start(index)).ok();
                let item = place.and_then(|place| items.get(place));
                next.push(item.ok_or_else(|| JsonPathError::Bounds {
                    text: self.text.clone(),
                    index,
                    length: items.len(),
                })?);
            }
            Slice::Range { from, to, step } => {
                let place = |index: i64| usize::try_from(from_start(index).clamp(0, length));
                let from = from.map_or(Ok(0), place).unwrap_or(0);
                let to = to.map_or(Ok(items.len()), place).unwrap_or(items.len());
                next.extend(items[from..to.max(from)].iter().step_by(step));
            }
        }
        Ok(())
    }

    fn holds(
        &self,
        left: &Operand,
        comparison: Option<&(Operator, Operand)>,
        root: &Value,
        item: &Value,
    ) -> Result<bool, JsonPathError> {
        let first = |operand: &Operand| -> Result<Option<Value>, JsonPathError> {
            match operand {
                Operand::Value(value) => Ok(Some(value.clone())),
                Operand::Path(steps) => Ok(self
                    .find(steps, root, item)?
                    .first()
                    .map(|value| (*value).clone())),
            }
        };
        let left = first(left)?;
        let Some((operator, right)) = comparison else {
            return Ok(left.is_some());
        };
        let (Some(left), Some(right)) = (left, first(right)?) else {
            return Ok(false);
        };
        let order = compare(&left, &right);
        Ok(match operator {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::NotEqual => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::Greater => order == Some(Ordering::Greater),
            Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        })
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'v>(value: &'v Value, next: &mut Vec<&'v Value>) {
    next.push(value);
    for child in children(value) {
        descend(child, next);
    }
}

/// The order of two values, none when they are of kinds that have no order.
#[must_use]
pub fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (left, right) if left == right => Some(Ordering::Equal),
        _ => None,
    }
}

/// A value as templates print it: texts as they are, the rest as JSON.
#[must_use]
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
