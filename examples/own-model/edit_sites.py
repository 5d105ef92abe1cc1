"""Make the edits of README step 3 in anna/, berta/ and carla/site.toml, as you would by hand."""

from pathlib import Path

EDITS = {
    "allow = []": 'allow = ["wound_model"]',
    "python_path = []": 'python_path = [".."]',
    '# group = "patient_id"': 'group = "patient_id"',
    "linger_s = 600.0": "linger_s = 10.0",
}
QUERY = "SELECT * EXCLUDE wound_mm2, wound_mm2 / 100 AS wound_cm2 FROM data"


def edit(site: str, edits: dict[str, str]) -> None:
    """Replace whole lines; a line that is not there is an error, not a silent no."""
    path = Path(__file__).with_name(site) / "site.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    for old, new in edits.items():
        at = next((at for at, line in enumerate(lines) if line.startswith(old)), None)
        if at is None:
            raise SystemExit(f"{path}: no line starts with {old}")
        lines[at] = new
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Edit all three; Berta never measures albumin, Carla needs the query."""
    edit("anna", EDITS)
    edit("berta", {**EDITS, "absent = []": 'absent = ["albumin"]'})
    edit("carla", {**EDITS, "# query = ": f'query = "{QUERY}"'})


if __name__ == "__main__":
    main()
