"""The command `portcullis`: one verb a file, loaded when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

# verb -> where its command is, and what it does. A verb's module is imported only to run it or to show its own help.
VERBS = {
    "serve": ("gateway.cli.serve", "Run the gateway."),
    "demo": ("gateway.cli.demo", "Run it with an issuer and an app of its own, to try it."),
    "init": ("gateway.cli.init", "Write a commented portcullis.toml."),
    "check": ("gateway.cli.check", "Judge a config, with every fault's place and remedy."),
    "keys": ("gateway.cli.keys", "Make, list and rotate signing keys."),
    "token": ("gateway.cli.token", "Make, decode and judge tokens."),
    "policy": ("gateway.cli.policy", "Check, test, explain, format and compile policies."),
    "relation": ("gateway.cli.relation", "Add, remove, list and check relations."),
    "audit": ("gateway.cli.audit", "Read and check the audit log."),
    "tables": ("gateway.cli.tables", "Show and migrate the tables of databases."),
    "user": ("gateway.cli.user", "Add, list, disable and enable users, and reset their passwords."),
    "render": ("gateway.cli.render", "Print the snippet for the proxy in front."),
    "bench": ("gateway.cli.bench", "Measure it on this machine."),
}


class LazyGroup(click.Group):
    """A group that knows its verbs by name, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module_name = VERBS[cmd_name][0]
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name != module_name:
                raise
            raise click.UsageError(f"`{cmd_name}` is not part of this installation") from None
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "`portcullis --help` lists them"
            ctx.fail(f"no verb `{args[0]}`; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from gateway import __version__

        click.echo(f"portcullis {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 fine, 1 faults were found, 2 wrong usage. `portcullis VERB --help` says more.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
@click.pass_context
def portcullis(ctx: click.Context) -> None:
    """An auth gateway: judges tokens at the doors of your apps."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the command line and exit."""
    try:
        portcullis(prog_name="portcullis")
    except BrokenPipeError:
        # The reader of a pipe went away (`portcullis … | head`): nothing more to say, and no traceback at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
