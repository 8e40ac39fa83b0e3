//! Runs the checks of the fuzz targets on the committed corpus. `make fuzz` searches for new inputs.

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::fs;
use std::path::Path;

#[test]
fn every_property_holds_for_the_stored_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, check) in properties::TARGETS {
        let folder = corpora.join(name);
        let mut inputs = 0;
        for file in fs::read_dir(&folder).expect("every target has a corpus") {
            let path = file.expect("the corpus can be read").path();
            // A panic says what is wrong; this line says for which input.
            println!("{}", path.display());
            check(&fs::read(&path).expect("the corpus can be read"));
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
}
