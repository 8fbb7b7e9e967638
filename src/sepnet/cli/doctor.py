"""``sepnet doctor``."""

from dataclasses import asdict

from sepnet.cli.options import FormatOption, TextOrJson, only_results, print_json, print_text


def command(form: FormatOption = TextOrJson.text) -> int:
    """Show what this machine has: processor, kernels, precision, PyTorch, GPU, cache; and what would make it faster.

    Tries the kernels once against PyTorch; exit 1 if they disagree.
    """
    from sepnet.doctor import examine

    with only_results():
        diagnosis = examine()
    if form is TextOrJson.json:
        print_json(asdict(diagnosis))
    else:
        print_text(str(diagnosis))
    return 0 if diagnosis.works else 1
