#!/usr/bin/env bash
# Validates one SR of each variant that the tests make with PixelMed's DicomSRValidator: `make pixelmed-check` (optional, about 20 s each).
# Needs Debian's packages libpixelmed-java and default-jre-headless. PYTHON=... names an environment with Fourview in it.
# Its templates are those of 2022: it knows no code at all for "Procedure reported" of a mammogram, which is not held against us.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python}
VALIDATOR=(java -Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 -Xss64m
    -cp '/usr/share/java/pixelmed.jar:/usr/share/java/slf4j-nop.jar:/usr/share/java/*' com.pixelmed.validate.DicomSRValidator)
EXPECTED='(121058,DCM,"Procedure reported").*not found in context group 100'

if ! [ -e /usr/share/java/pixelmed.jar ] || ! command -v java >/dev/null; then
    echo 'pixelmed_check: apt install libpixelmed-java default-jre-headless' >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PYTHONPATH=.:tests "$PYTHON" - "$work" <<'PYTHON'
import sys
from pathlib import Path

from reports_made import VARIANTS

from pipeline.report import build

for name, made in VARIANTS.items():
    sr = next(one for one in build(made()) if one.kind == "sr")
    Path(sys.argv[1], name.replace(" ", "_").replace(",", "") + ".dcm").write_bytes(sr.data)
PYTHON

failed=0
for file in "$work"/*.dcm; do
    said=$("${VALIDATOR[@]}" "$file" 2>&1)
    grep -q 'Root Template Validation Complete' <<<"$said" || { echo "$(basename "$file"): it did not finish: $said" >&2; failed=1; }
    errors=$(grep '^Error' <<<"$said" | grep -v "$EXPECTED" || true)
    echo "$(basename "$file" .dcm): ${errors:-no error, $(grep -c '^Warning' <<<"$said" || true) warnings}"
    [ -z "$errors" ] || failed=1
done
exit "$failed"
