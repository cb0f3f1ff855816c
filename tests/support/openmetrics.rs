//! A strict OpenMetrics 1.0 reader: it rejects what the specification forbids, as far as coracle
//! could write it.

use std::collections::{BTreeMap, BTreeSet};

/// The series of `text`, or what is wrong with it.
pub fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let lines = text.strip_suffix("# EOF\n").ok_or("no EOF at the end")?;
    if !lines.is_empty() && !lines.ends_with('\n') {
        return Err("a line without an end".into());
    }
    let mut reader = Reader::default();
    for line in lines.split_terminator('\n') {
        reader
            .line(line)
            .map_err(|problem| format!("{problem}: {line}"))?;
    }
    reader.check_buckets()?;
    Ok(reader.series)
}

#[derive(Default)]
struct Reader {
    families: BTreeSet<String>,
    family: String,
    kind: String,
    said: BTreeSet<&'static str>,
    series: BTreeMap<String, f64>,
    /// Each histogram's buckets in order: its labels without `le`, then bound and count.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let Some(comment) = line.strip_prefix("# ") else {
            return self.sample(line);
        };
        let mut words = comment.splitn(3, ' ');
        let (keyword, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let rest = words.next().ok_or("nothing follows the name")?;
        let keyword = ["TYPE", "UNIT", "HELP"].into_iter().find(|k| *k == keyword);
        let keyword = keyword.ok_or("unknown keyword")?;
        if !is_name(name) {
            return Err("not a name".into());
        }
        if name != self.family {
            if !self.families.insert(name.to_owned()) {
                return Err("a family in two pieces".into());
            }
            name.clone_into(&mut self.family);
            self.said.clear();
            "unknown".clone_into(&mut self.kind);
        }
        let has_samples = !self.said.insert(keyword);
        if has_samples || self.said.contains("sample") {
            return Err("metadata twice or after samples".into());
        }
        match keyword {
            "TYPE" if !matches!(rest, "counter" | "gauge" | "histogram") => Err("type".into()),
            "TYPE" if rest == "counter" && name.ends_with("_total") => {
                Err("a counter's family ends in _total".into())
            }
            "TYPE" => {
                rest.clone_into(&mut self.kind);
                Ok(())
            }
            "UNIT" if !name.ends_with(&format!("_{rest}")) => Err("not the name's unit".into()),
            "HELP" => unescape(rest).map(drop),
            _ => Ok(()),
        }
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        self.said.insert("sample");
        let name_end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, rest) = line.split_at(name_end);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let value = value.strip_prefix(' ').ok_or("no space before the value")?;
        let number = number(value)?;
        let suffix = name
            .strip_prefix(self.family.as_str())
            .ok_or("a sample outside its family")?;
        let bound = labels.iter().find(|(name, _)| name == "le");
        match (self.kind.as_str(), suffix) {
            ("counter", "_total") | ("gauge", "") if bound.is_none() => {}
            ("histogram", "_sum" | "_count") if bound.is_none() => {}
            ("histogram", "_bucket") => {
                let (_, bound) = bound.ok_or("a bucket without a bound")?;
                let bound_value = self::number(bound)?;
                if bound != "+Inf" && *bound != format!("{bound_value:?}") {
                    return Err("a bound that is not canonical".into());
                }
                let others = labels.iter().filter(|(name, _)| name != "le");
                let key = format!("{} {:?}", self.family, others.collect::<Vec<_>>());
                let buckets = self.buckets.entry(key).or_default();
                buckets.push((bound_value, number));
            }
            _ => return Err(format!("a {} has no such sample", self.kind)),
        }
        if self.kind != "gauge" && (number < 0.0 || number.is_nan()) {
            return Err("less than nothing".into());
        }
        let series = line[..line.len() - value.len() - 1].to_owned();
        match self.series.insert(series, number) {
            Some(_) => Err("a series twice".into()),
            None => Ok(()),
        }
    }

    fn check_buckets(&self) -> Result<(), String> {
        for (key, buckets) in &self.buckets {
            let ascending = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
            let last = buckets.last().ok_or("no bucket")?;
            if !ascending || last.0 != f64::INFINITY {
                return Err(format!("buckets out of order or without +Inf: {key}"));
            }
        }
        let counts = self.series.iter().filter(|(key, _)| key.contains("_count"));
        for (key, count) in counts {
            let mut bucket = key
                .replace("_count", "_bucket")
                .replace('}', ",le=\"+Inf\"}");
            if !bucket.contains('{') {
                bucket.push_str("{le=\"+Inf\"}");
            }
            if self.series.get(&bucket) != Some(count) {
                return Err(format!("the count is not the last bucket: {key}"));
            }
        }
        Ok(())
    }
}

/// Labels, each with its name and value.
type Labels = Vec<(String, String)>;

/// The labels of `text`, which begins after the brace, and what follows the closing one.
fn labels(mut text: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    loop {
        let (name, rest) = text.split_once("=\"").ok_or("no label")?;
        if !is_name(name) || name.contains(':') || labels.iter().any(|(n, _)| n == name) {
            return Err("a label's name".into());
        }
        let mut escaped = false;
        let end = rest.find(|c| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        let (value, rest) = rest.split_at(end.ok_or("no end of the label's value")?);
        labels.push((name.to_owned(), unescape(value)?));
        match rest[1..].strip_prefix(',') {
            Some(rest) => text = rest,
            None => {
                let rest = rest[1..].strip_prefix('}').ok_or("no end of the labels")?;
                return Ok((labels, rest));
            }
        }
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Err("a quote that is not escaped".into()),
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some(c @ ('"' | '\\')) => c,
                _ => return Err("an unknown escape".into()),
            }),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn number(text: &str) -> Result<f64, String> {
    let allowed = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let written_well = text.chars().all(allowed) || matches!(text, "+Inf" | "-Inf" | "NaN");
    match text.parse() {
        Ok(number) if written_well => Ok(number),
        _ => Err("not a number".into()),
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    name.chars().all(allowed) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}
