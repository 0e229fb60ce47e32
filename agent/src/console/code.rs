//! The node's id as a QR code of half blocks: two rows of modules a line, so that 41 columns and 21 lines hold it.
//!
//! What is light in the code is drawn as a block and what is dark is left out: a console is dark.

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code, as its standard wants them (ISO/IEC 18004: four).
const QUIET: usize = 4;

/// The lines of a code that says `text`; or why there is none that `columns` and `rows` hold.
///
/// # Errors
/// One sentence for a person.
pub fn lines(text: &str, columns: usize, rows: usize) -> Result<Vec<String>, String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| format!("this is too long for a QR code: {error}"))?;
    let width = code.width();
    let all = width + 2 * QUIET;
    let needed = all.div_ceil(2);
    if all > columns || needed > rows {
        return Err(format!(
            "this screen of {columns} columns and {rows} lines is too small for the code: it takes {all} and {needed}"
        ));
    }
    let colors = code.to_colors();
    let light = |row: usize, column: usize| {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < width);
        match (inside(row), inside(column)) {
            _ if row >= all => false,
            (Some(row), Some(column)) => colors.get(row * width + column) != Some(&Color::Dark),
            _ => true,
        }
    };
    let line = |pair: usize| -> String {
        (0..all)
            .map(
                |column| match (light(2 * pair, column), light(2 * pair + 1, column)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                },
            )
            .collect()
    };
    Ok((0..needed).map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_fits_the_smallest_screen() {
        let id = "7e2a091c".repeat(8);
        let code = lines(&id, 80, 22).expect("it fits");
        assert_eq!((code.len(), code[0].chars().count()), (21, 41));
        assert!(code.iter().all(|line| line.chars().count() == 41));
        assert!(
            code[..2].iter().all(|line| line.chars().all(|c| c == '█')),
            "the quiet zone"
        );
        // The finder's corner: 7 dark modules in the first row of the code.
        let first: String = code[2].chars().skip(QUIET).take(8).collect();
        assert_eq!(first, " ▄▄▄▄▄ █");
        assert_ne!(lines(&id.replacen('7', "8", 1), 80, 22).expect("it fits"), code);
    }

    #[test]
    fn what_does_not_fit_says_what_it_takes() {
        let id = "7e2a091c".repeat(8);
        let why = lines(&id, 40, 22).expect_err("too narrow");
        assert!(why.contains("takes 41 and 21"), "{why}");
        assert!(lines(&id, 80, 20).is_err());
        assert!(lines(&"x".repeat(5000), 400, 400).is_err());
    }
}
