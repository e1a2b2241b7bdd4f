# Sourced: names real pictures and odd inputs by HGAT_TEST_COCO and HGAT_TEST_CASES where they lie beside the clone.

use_if_there() {
    local variable=$1 folder=$2
    if [ -n "${!variable:-}" ]; then
        echo "$variable=${!variable} (given)"
    elif [ -d "$folder" ]; then
        export "$variable=$(cd "$folder" && pwd)"
        echo "$variable=${!variable}"
    else
        echo "$variable is unset: $3"
    fi
}

use_if_there HGAT_TEST_COCO ../shared/data/coco-mini "tests that read it say so and pass over, benches draw pictures"
use_if_there HGAT_TEST_CASES ../shared/cases "tests that read it say so and pass over"
