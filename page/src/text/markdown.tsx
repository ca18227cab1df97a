export const Markdown = ({ text }: { text: string; growing: boolean }) => <div class="plain">{text}</div>;
