//! A text of several statements, split at its semicolons. Strings, quoted names and comments may contain semicolons
//! that end no statement, so the text is read with the tokenizer that the server's parser uses.

use query_api::wire::Place;
use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

/// One statement, without its semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    sql: String,
    begins: Place,
}

impl Statement {
    /// A statement that is the whole text.
    pub(super) fn alone(sql: String) -> Self {
        Self { sql, begins: Place { line: 1, column: 1 } }
    }

    /// Its text.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// Where it begins in the text.
    pub(super) fn begins(&self) -> Place {
        self.begins
    }
}

/// What a text holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Statements that a semicolon ends. Those that are empty or only comments are left out.
    ended: Vec<Statement>,
    /// What follows the last semicolon, when it is more than space and comments.
    rest: Option<Statement>,
    /// The rest cannot be read, and nothing that follows it would change that.
    is_broken: bool,
    /// A semicolon is the last thing in the text.
    ends_with_semicolon: bool,
}

/// Messages of the tokenizer for a text that ends too early: within quotes or a comment.
const ENDS_EARLY: [&str; 3] = ["Unterminated", "EOF", "invalid number of opening quotes"];

impl Script {
    /// Splits a text. A byte order mark before it is dropped. Where the text cannot be read on, as behind a quote
    /// that is not closed, everything from the last semicolon on is the rest.
    pub(super) fn of(text: &str) -> Self {
        // Editors on Windows write one before UTF-8; to the tokenizer it would be a character of the first word.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut tokens = Vec::new();
        let read = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut tokens);
        let is_readable = read.is_ok();
        // The tokenizer's error has no kind: only its message shows whether more text could complete the statement.
        let is_broken = read.is_err_and(|error| !ENDS_EARLY.iter().any(|early| error.message.contains(early)));
        let ends_with_semicolon = text.trim_end().ends_with(';');
        let mut script = Self { is_broken, ends_with_semicolon, ..Self::default() };
        let mut places = Places::of(text);
        // Where the current statement begins: behind the last semicolon, then at its first token that is not space.
        let mut begins: Option<(usize, Place)> = None;
        let mut behind = (0, Place { line: 1, column: 1 });
        for token in &tokens {
            match &token.token {
                Token::SemiColon => {
                    let end = places.byte_of(token.span.start);
                    let ended = begins.take();
                    script.ended.extend(
                        ended.map(|(begin, begins)| Statement { sql: text[begin..end].trim_end().to_owned(), begins }),
                    );
                    // A semicolon is one byte in UTF-8.
                    behind = (end + 1, Place { line: token.span.end.line, column: token.span.end.column });
                }
                Token::Whitespace(_) | Token::EOF => {}
                _ if begins.is_none() => {
                    let at = Place { line: token.span.start.line, column: token.span.start.column };
                    begins = Some((places.byte_of(token.span.start), at));
                }
                _ => {}
            }
        }
        // The tokenizer stops at its first error: what it could not read is not among its tokens, but is part of the
        // rest.
        let rest = begins.or((!is_readable).then_some(behind));
        script.rest = rest.map(|(begin, begins)| Statement { sql: text[begin..].trim_end().to_owned(), begins });
        script
    }

    /// All statements of a whole text: one that no semicolon ends is the last.
    pub(super) fn all(self) -> Vec<Statement> {
        self.ended.into_iter().chain(self.rest).collect()
    }

    /// The statements to run of a text that is entered line by line, and the text that more lines are to end.
    pub(super) fn entered(self) -> (Vec<Statement>, String) {
        let Self { mut ended, mut rest, is_broken, ends_with_semicolon } = self;
        if is_broken && ends_with_semicolon {
            // The user has ended it with a semicolon: it is sent, and the server reports the fault with its place.
            ended.extend(rest.take());
        }
        (ended, rest.map(|rest| format!("{}\n", rest.sql)).unwrap_or_default())
    }
}

/// Byte offsets of places that are asked for in rising order.
struct Places<'a> {
    characters: std::str::CharIndices<'a>,
    next: Location,
    end: usize,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        Self { characters: text.char_indices(), next: Location::new(1, 1), end: text.len() }
    }

    fn byte_of(&mut self, place: Location) -> usize {
        loop {
            // One pass over the text for all tokens, in characters as the tokenizer counts. Starting anew for each
            // would be quadratic.
            let at = self.characters.offset();
            if self.next >= place {
                return at;
            }
            match self.characters.next() {
                Some((_, '\n')) => self.next = Location::new(self.next.line + 1, 1),
                Some(_) => self.next.column += 1,
                None => return self.end,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> (Vec<(String, u64, u64)>, Option<String>) {
        let script = Script::of(text);
        let ended = script.ended.into_iter().map(|s| (s.sql, s.begins.line, s.begins.column)).collect();
        (ended, script.rest.map(|rest| rest.sql))
    }

    #[test]
    fn statements_end_at_semicolons_that_no_quote_or_comment_holds() {
        let text = "SELECT ';' AS \"a;b\"; -- one; two\n/* ; */ SELECT\n 2 ;;SELECT 3";
        let ended = [("SELECT ';' AS \"a;b\"", 1, 1), ("SELECT\n 2", 2, 9)];
        let ended = ended.map(|(sql, line, column)| (sql.to_owned(), line, column)).to_vec();
        assert_eq!(pieces(text), (ended, Some("SELECT 3".to_owned())));
    }

    #[test]
    fn text_that_says_nothing_is_no_statement() {
        for nothing in ["", " \n", ";", "-- remark\n;", "/* remark */", "\u{feff};"] {
            assert_eq!(pieces(nothing), (Vec::new(), None), "{nothing:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_statement() {
        assert_eq!(pieces("\u{feff}SELECT 1;").0, [("SELECT 1".to_owned(), 1, 1)]);
    }

    #[test]
    fn what_is_not_closed_is_kept_for_more_of_it() {
        assert_eq!(
            pieces("SELECT 1; SELECT 'a;\nb"),
            (vec![("SELECT 1".to_owned(), 1, 1)], Some("SELECT 'a;\nb".to_owned()))
        );
        assert_eq!(pieces("SELECT \u{1f600}, 'é'; x").1.as_deref(), Some("x"));
        assert_eq!(pieces("/* never ends").1.as_deref(), Some("/* never ends"));
    }

    #[test]
    fn what_no_more_text_makes_readable_is_broken() {
        for broken in ["SELECT 1; SELECT U&'\\zzzz';", "SELECT U&'\\zzzz"] {
            assert!(Script::of(broken).is_broken, "{broken}");
        }
        for open in
            ["SELECT 'a", "SELECT \"a", "/* a", "SELECT $$a", "SELECT $a$ b", "SELECT U&'a", "SELECT E'a", "SELECT 1"]
        {
            assert!(!Script::of(open).is_broken, "{open}");
        }
    }
}
