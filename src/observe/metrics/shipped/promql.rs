//! Enough of PromQL to see whether a query can have a result: that its metrics are there, that they have the labels that
//! are asked for, and that what stands on both sides of an operator can match.

use std::collections::BTreeSet;

use super::super::table::{ALL, Kind, PROCESS};

/// Names of labels.
pub(super) type Labels = BTreeSet<String>;

/// What Prometheus itself adds to every series of a target.
const OF_TARGET: [&str; 2] = ["instance", "job"];

const AGGREGATIONS: [&str; 9] = ["sum", "min", "max", "avg", "count", "stddev", "topk", "bottomk", "quantile"];

/// The labels of a query's result.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub(super) fn labels(query: &str) -> Result<Labels, String> {
    let tokens = tokens(query).map_err(|why| format!("{why} in {query}"))?;
    let mut parser = Parser { tokens, at: 0 };
    let result = parser.expression(0).and_then(|result| match parser.next() {
        None => Ok(result),
        Some(token) => Err(format!("{token:?} follows the end")),
    });
    match result {
        Ok(Type::Vector(labels)) => Ok(labels),
        Ok(other) => Err(format!("{other:?} is no vector: {query}")),
        Err(why) => Err(format!("{why}, in {query}")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Type {
    Scalar,
    Text,
    Vector(Labels),
    /// Values over a time; whether they only grow.
    Range(Labels, bool),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Number,
    Text,
    Symbol(&'static str),
}

/// The labels of a metric as it is exposed, parts of histograms included; whether it only grows.
fn series(name: &str) -> Result<(Labels, bool), String> {
    let of_target = || OF_TARGET.into_iter();
    if name == "up" {
        return Ok((of_target().map(str::to_owned).collect(), false));
    }
    for def in ALL.iter().copied().chain(PROCESS) {
        let labels = def.labels.iter().copied().chain(of_target());
        match name.strip_prefix(def.name) {
            Some("") if def.kind != Kind::Histogram => {
                return Ok((labels.map(str::to_owned).collect(), def.kind == Kind::Counter));
            }
            Some("_bucket") if def.kind == Kind::Histogram => {
                return Ok((labels.chain(["le"]).map(str::to_owned).collect(), true));
            }
            Some("_sum" | "_count") if def.kind == Kind::Histogram => {
                return Ok((labels.map(str::to_owned).collect(), true));
            }
            _ => {}
        }
    }
    Err(format!("there is no metric {name}"))
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    // The longer ones first.
    const SYMBOLS: [&str; 22] = [
        "==", "!=", "<=", ">=", "=~", "!~", "=", "<", ">", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}", "[", "]",
        ",",
    ];
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            let end = rest.get(1..).and_then(|rest| rest.find('"')).ok_or("a quote without its end")?;
            tokens.push(Token::Text);
            end + 2
        } else if first.is_ascii_digit() {
            // Durations too: `5m`, `1h30m`.
            tokens.push(Token::Number);
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len())
        } else if first.is_ascii_alphabetic() || "_:$".contains(first) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_:$".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
            let symbol = symbol.ok_or_else(|| format!("{first:?} is nothing of PromQL"))?;
            tokens.push(Token::Symbol(symbol));
            symbol.len()
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

/// Which labels an operator matches by.
enum By {
    All,
    On(Labels),
    Ignoring(Labels),
}

impl Parser {
    /// Operators of at least this precedence, and what they connect.
    fn expression(&mut self, least: u8) -> Result<Type, String> {
        let mut left = self.operand()?;
        while let Some((operator, precedence)) = self.operator().filter(|(_, precedence)| *precedence >= least) {
            self.at += 1;
            let boolean = self.takes_word("bool");
            let by = match () {
                () if self.takes_word("on") => By::On(self.names()?),
                () if self.takes_word("ignoring") => By::Ignoring(self.names()?),
                () => By::All,
            };
            let many = self.takes_word("group_left");
            let extra = if many && self.peek() == Some(&Token::Symbol("(")) { self.names()? } else { Labels::new() };
            let right = self.expression(precedence + 1)?;
            if boolean && precedence != 2 {
                return Err("bool is for comparisons".to_owned());
            }
            left = combine(&operator, left, right, by, many, &extra)?;
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Type, String> {
        match self.next() {
            Some(Token::Number) => Ok(Type::Scalar),
            Some(Token::Text) => Ok(Type::Text),
            Some(Token::Symbol("-")) => self.operand(),
            Some(Token::Symbol("(")) => {
                let inner = self.expression(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Token::Word(word)) if AGGREGATIONS.contains(&word.as_str()) => self.aggregation(&word),
            Some(Token::Word(word)) if self.peek() == Some(&Token::Symbol("(")) => {
                let arguments = self.arguments()?;
                call(&word, &arguments)
            }
            Some(Token::Word(word)) => self.selector(&word),
            other => Err(format!("{other:?} where a value is expected")),
        }
    }

    fn selector(&mut self, name: &str) -> Result<Type, String> {
        let (labels, grows) = series(name)?;
        if self.takes("{") {
            while !self.takes("}") {
                let label = self.word()?;
                contained(&label, &labels, name)?;
                match self.next() {
                    Some(Token::Symbol("=" | "!=" | "=~" | "!~")) => {}
                    other => return Err(format!("{other:?} after {label}")),
                }
                if self.next() != Some(Token::Text) {
                    return Err(format!("{label} is compared with no text"));
                }
                if !self.takes(",") && self.peek() != Some(&Token::Symbol("}")) {
                    return Err("a } is missing".to_owned());
                }
            }
        }
        let range = self.takes("[");
        if range {
            match self.next() {
                Some(Token::Number) => {}
                Some(Token::Word(word)) if word.starts_with("$__") => {}
                other => return Err(format!("{other:?} is no duration")),
            }
            self.expect("]")?;
        }
        if self.takes_word("offset") && self.next() != Some(Token::Number) {
            return Err("an offset is a duration".to_owned());
        }
        Ok(if range { Type::Range(labels, grows) } else { Type::Vector(labels) })
    }

    fn aggregation(&mut self, operator: &str) -> Result<Type, String> {
        let before = self.grouping()?;
        let arguments = self.arguments()?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        let labels = match (operator, &arguments[..]) {
            ("topk" | "bottomk", [Type::Scalar, Type::Vector(labels)]) => return Ok(Type::Vector(labels.clone())),
            ("quantile", [Type::Scalar, Type::Vector(labels)]) => labels,
            (_, [Type::Vector(labels)]) if operator != "quantile" => labels,
            _ => return Err(format!("{operator} of {arguments:?}")),
        };
        let (by, names) = grouping.unwrap_or_else(|| (true, Labels::new()));
        names.iter().try_for_each(|name| contained(name, labels, operator))?;
        Ok(Type::Vector(if by { names } else { labels - &names }))
    }

    /// `by (…)`: true; or `without (…)`: false.
    fn grouping(&mut self) -> Result<Option<(bool, Labels)>, String> {
        match () {
            () if self.takes_word("by") => Ok(Some((true, self.names()?))),
            () if self.takes_word("without") => Ok(Some((false, self.names()?))),
            () => Ok(None),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Type>, String> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.takes(")") {
            arguments.push(self.expression(0)?);
            if !self.takes(",") && self.peek() != Some(&Token::Symbol(")")) {
                return Err("a ) is missing".to_owned());
            }
        }
        Ok(arguments)
    }

    fn names(&mut self) -> Result<Labels, String> {
        self.expect("(")?;
        let mut names = Labels::new();
        while !self.takes(")") {
            names.insert(self.word()?);
            if !self.takes(",") && self.peek() != Some(&Token::Symbol(")")) {
                return Err("a ) is missing".to_owned());
            }
        }
        Ok(names)
    }

    fn operator(&self) -> Option<(String, u8)> {
        let (operator, precedence) = match self.peek()? {
            Token::Word(word) => match word.as_str() {
                "or" => ("or", 0),
                "and" => ("and", 1),
                "unless" => ("unless", 1),
                _ => return None,
            },
            Token::Symbol(symbol @ ("==" | "!=" | "<=" | ">=" | "<" | ">")) => (*symbol, 2),
            Token::Symbol(symbol @ ("+" | "-")) => (*symbol, 3),
            Token::Symbol(symbol @ ("*" | "/" | "%")) => (*symbol, 4),
            _ => return None,
        };
        Some((operator.to_owned(), precedence))
    }

    fn word(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(format!("{other:?} where a name is expected")),
        }
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), String> {
        if self.takes(symbol) { Ok(()) } else { Err(format!("{:?} where a {symbol} is expected", self.peek())) }
    }

    fn takes(&mut self, symbol: &'static str) -> bool {
        let there = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(there);
        there
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }
}

fn call(function: &str, arguments: &[Type]) -> Result<Type, String> {
    use Type::{Range, Scalar, Vector};
    match (function, arguments) {
        // Of what also falls, they say nonsense.
        ("rate" | "irate" | "increase", [Range(labels, true)]) => Ok(Vector(labels.clone())),
        (
            "changes" | "max_over_time" | "min_over_time" | "avg_over_time" | "delta" | "deriv",
            [Range(labels, false)],
        ) => Ok(Vector(labels.clone())),
        ("predict_linear", [Range(labels, false), Scalar]) => Ok(Vector(labels.clone())),
        ("histogram_quantile", [Scalar, Vector(labels)]) => {
            contained("le", labels, function)?;
            Ok(Vector(labels.iter().filter(|label| *label != "le").cloned().collect()))
        }
        ("clamp_min" | "clamp_max", [Vector(labels), Scalar]) => Ok(Vector(labels.clone())),
        ("time", []) => Ok(Scalar),
        ("vector", [Scalar]) => Ok(Vector(Labels::new())),
        _ => Err(format!("{function} of {arguments:?}")),
    }
}

fn combine(operator: &str, left: Type, right: Type, by: By, many: bool, extra: &Labels) -> Result<Type, String> {
    let (left, right) = match (left, right) {
        (Type::Scalar, Type::Scalar) => return Ok(Type::Scalar),
        (Type::Vector(left), Type::Vector(right)) => (left, right),
        (Type::Vector(one), Type::Scalar) | (Type::Scalar, Type::Vector(one))
            if !matches!(operator, "or" | "and" | "unless") && matches!(by, By::All) =>
        {
            return Ok(Type::Vector(one));
        }
        (left, right) => return Err(format!("{left:?} {operator} {right:?}")),
    };
    let on = matches!(by, By::On(_));
    let (shared, left_only, right_only) = match by {
        By::All => (left.clone(), left.clone(), right.clone()),
        By::Ignoring(names) => (&left - &names, &left - &names, &right - &names),
        By::On(names) => {
            names.iter().try_for_each(|name| contained(name, &left, operator))?;
            names.iter().try_for_each(|name| contained(name, &right, operator))?;
            (names, left.clone(), right.clone())
        }
    };
    let same = left_only == right_only;
    match operator {
        // Nobody can make sense of a result of which some series have labels that others lack.
        "or" if same => Ok(Type::Vector(left)),
        "and" | "unless" if same || on => Ok(Type::Vector(left)),
        "or" | "and" | "unless" => Err(format!("{left:?} {operator} {right:?}: no label sets are the same")),
        // Several of the left may meet one of the right, which must be told apart by what they are matched by.
        _ if many && shared == right_only && extra.is_subset(&right) => Ok(Type::Vector(&left | extra)),
        _ if !many && shared == left_only && same => Ok(Type::Vector(shared)),
        _ => Err(format!("{left:?} {operator} {right:?} do not match one to one")),
    }
}

fn contained(label: &str, labels: &Labels, of: &str) -> Result<(), String> {
    if labels.contains(label) { Ok(()) } else { Err(format!("{of} has no label {label}: it has {labels:?}")) }
}

#[test]
fn queries_are_understood() {
    let of = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Labels>());
    let cases = [
        ("up{job=\"foreland\"} == 0", of(&["instance", "job"])),
        ("sum by (status) (rate(foreland_requests_total{site=~\"$site\"}[$__rate_interval]))", of(&["status"])),
        (
            "sum(rate(foreland_requests_total[5m])) by (site) / sum by (site) (rate(foreland_requests_total[5m]))",
            of(&["site"]),
        ),
        ("sum without (le, job) (foreland_request_duration_seconds_bucket)", of(&["instance", "site"])),
        (
            "histogram_quantile(0.99, sum by (le, origin) (rate(foreland_origin_first_byte_seconds_bucket[5m])))",
            of(&["origin"]),
        ),
        ("time() - process_start_time_seconds > 1h", of(&["instance", "job"])),
        (
            "foreland_origin_server_up == 0 and on (instance, origin) foreland_origin_panicking == 1",
            of(&["instance", "job", "origin", "server"]),
        ),
        (
            "foreland_origin_server_up * on (instance, job, origin) group_left () foreland_origin_panicking",
            of(&["instance", "job", "origin", "server"]),
        ),
        ("1 - -process_open_fds / (process_max_fds + 1)", of(&["instance", "job"])),
    ];
    for (query, expected) in cases {
        assert_eq!(labels(query), expected, "{query}");
    }
}

#[test]
fn queries_that_cannot_have_a_result_are_seen() {
    let cases = [
        "foreland_invented_total",
        "foreland_request_duration_seconds",
        "foreland_requests_total_bucket",
        "foreland_requests_total{tier=\"memory\"}",
        "sum by (origin) (foreland_requests_in_flight)",
        "sum(foreland_requests_in_flight",
        "sum(foreland_requests_in_flight))",
        "up{job=\"foreland}",
        "up{job=\"a\" instance=\"b\"}",
        "rate(foreland_requests_in_flight[5m])",
        "rate(foreland_requests_total)",
        "changes(foreland_requests_total[5m])",
        "foreland_requests_total[5m]",
        "sum by (site) (foreland_requests_in_flight) / sum(foreland_requests_in_flight)",
        "foreland_origin_server_up == 0 and foreland_origin_panicking == 1",
        "foreland_origin_server_up * on (instance, job, origin) foreland_origin_panicking",
        "histogram_quantile(0.9, sum by (site) (rate(foreland_request_duration_seconds_bucket[5m])))",
        "up and 1",
        "invented(up)",
        "up # down",
        "",
    ];
    for query in cases {
        assert!(labels(query).is_err(), "{query}: {:?}", labels(query));
    }
}
