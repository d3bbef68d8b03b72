//! The query of a request, read with limits: names once, numbers in their range, pages of a bounded size.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::ApiError;

/// Parameters in one query.
const PARAMETERS_MAX: usize = 16;
/// Bytes of one value, after decoding.
const VALUE_BYTES_MAX: usize = 1_024;
/// Items of a page when none are asked for.
const PAGE_SIZE: usize = 50;
/// Items of a page at most.
pub(super) const PAGE_SIZE_MAX: usize = 200;
/// Pages are numbered from 1 up to this.
const PAGE_MAX: usize = 1_000_000;

/// What a request asks for beside its path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(BTreeMap<String, String>);

/// A part of a longer list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// From 1.
    pub(super) number: usize,
    pub(super) size: usize,
}

impl Parameters {
    /// Reads `name=value&…` with `%` and `+` decoded. A name that stands there twice is refused: which one counts would be a guess.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut found = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if value.len() > VALUE_BYTES_MAX {
                return Err(ApiError::invalid(format!("\"{name}\" is longer than {VALUE_BYTES_MAX} bytes")));
            }
            if found.len() >= PARAMETERS_MAX {
                return Err(ApiError::invalid(format!("more than {PARAMETERS_MAX} parameters")));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(ApiError::invalid(format!("\"{name}\" is given twice")));
            }
        }
        Ok(Self(found))
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Whether `name` is `true`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::invalid(format!("\"{name}\" is neither true nor false"))),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse::<i64>().ok().filter(|number| (least..=most).contains(number));
        let wrong = || ApiError::invalid(format!("\"{name}\" is not a whole number from {least} to {most}"));
        number.map(Some).ok_or_else(wrong)
    }

    /// One of some words; the first when there is none.
    pub(super) fn word<'a>(&self, name: &str, words: &[&'a str]) -> Result<&'a str, ApiError> {
        let wrong = || ApiError::invalid(format!("\"{name}\" is none of: {}", words.join(", ")));
        match self.text(name) {
            None => words.first().copied().ok_or_else(wrong),
            Some(text) => words.iter().copied().find(|word| *word == text).ok_or_else(wrong),
        }
    }

    /// `page` and `size`.
    pub(super) fn page(&self) -> Result<Page, ApiError> {
        let number = |name, default: usize, most: usize| {
            let found = self.number(name, 1, i64::try_from(most).unwrap_or(i64::MAX))?;
            Ok::<_, ApiError>(found.and_then(|number| usize::try_from(number).ok()).unwrap_or(default))
        };
        Ok(Page { number: number("page", 1, PAGE_MAX)?, size: number("size", PAGE_SIZE, PAGE_SIZE_MAX)? })
    }
}

impl Page {
    /// The part of a list of so many that is on this page; one behind the end is the last.
    fn clamped(self, total: usize) -> Self {
        let last = total.div_ceil(self.size).max(1);
        Self { number: self.number.min(last), ..self }
    }

    /// Takes the page out of a list, and describes it: `{"page", "size", "pages", "total"}`.
    pub(super) fn cut<T>(self, items: Vec<T>) -> (Vec<T>, Value) {
        let total = items.len();
        let page = self.clamped(total);
        let first = (page.number - 1) * page.size;
        let cut = items.into_iter().skip(first).take(page.size).collect();
        let pages = total.div_ceil(page.size).max(1);
        (cut, json!({ "page": page.number, "size": page.size, "pages": pages, "total": total }))
    }
}

/// `%41` is A, `+` a space.
fn decoded(text: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or_else(|| {
                    ApiError::invalid("% in the query is not followed by two hexadecimal digits")
                })?
            }
            other => other,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid("the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Parameters {
        Parameters::parse(Some(query)).unwrap()
    }

    #[test]
    fn values_are_decoded_and_empty_ones_are_none() {
        let found = parsed("search=a%2Fb+c%C3%A4&empty=&flag=true");
        assert_eq!(found.text("search"), Some("a/b cä"));
        assert_eq!(found.text("empty"), None);
        assert!(found.flag("flag").unwrap() && !found.flag("other").unwrap());
        assert_eq!(Parameters::parse(None).unwrap(), Parameters::default());
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let long = format!("a={}", "x".repeat(VALUE_BYTES_MAX + 1));
        let many = (0..=PARAMETERS_MAX).fold(String::new(), |many, number| many + &format!("p{number}=1&"));
        for query in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=1&a=2", &long, &many] {
            assert!(Parameters::parse(Some(query)).is_err(), "{query}");
        }
        for query in ["page=0", "page=-1", "page=x", "size=201", "size=0", "page=99999999999999999999"] {
            assert!(parsed(query).page().is_err(), "{query}");
        }
    }

    #[test]
    fn a_page_is_cut_out_and_one_behind_the_end_is_the_last() {
        let cut = |query: &str| parsed(query).page().unwrap().cut((0..5).collect::<Vec<_>>());
        assert_eq!(cut("size=2").0, [0, 1]);
        let (items, page) = cut("size=2&page=9");
        assert_eq!(items, [4]);
        assert_eq!(page, json!({ "page": 3, "size": 2, "pages": 3, "total": 5 }));
        assert_eq!(parsed("").page().unwrap().cut(Vec::<i32>::new()).1["pages"], 1);
    }

    #[test]
    fn words_are_of_a_list() {
        assert_eq!(parsed("").word("sort", &["name", "size"]).unwrap(), "name");
        assert_eq!(parsed("sort=size").word("sort", &["name", "size"]).unwrap(), "size");
        assert!(parsed("sort=__proto__").word("sort", &["name", "size"]).is_err());
    }
}
